"""What a converted folder holds beside its report and card: weights, config.json, preprocessor_config.json.

    source, Plan → ``write()`` → files in an empty folder

Everything written is a function of the source and the options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.architecture import Architecture
from converters.catalogue import Preprocessing, Variant
from converters.files import CONFIG, PREPROCESSOR, WEIGHTS, write_json
from converters.labels import id2label
from converters.layouts import STANDARDIZATION_EPSILON, TRANSFORMERS, Array, Exact
from converters.names import GOOGLE, parameters
from converters.stream import write_safetensors
from verify.protocols import PoolPadding, Source

UNKNOWN_PREPROCESSING = Preprocessing(size={"height": 480, "width": 480})
"""big_transfer's recipe for images that are not tiny, for checkpoints that the catalogue does not know."""


@dataclass(frozen=True)
class Plan:
    """What is to become of a source."""

    name: str
    """Of the model and its repository: a variant's, or made from the architecture."""
    architecture: Architecture
    variant: Variant | None
    exact: Exact
    pool_padding: PoolPadding

    @property
    def preprocessing(self) -> Preprocessing:
        return self.variant.preprocessing if self.variant else UNKNOWN_PREPROCESSING

    @property
    def labels(self) -> list[str] | None:
        """The classes' names in the order of the logits; None where they are not known."""
        if self.architecture.classes is None or self.variant is None or self.variant.labels is None:
            return None
        return id2label(self.variant.labels)


def write(folder: Path, source: Source, plan: Plan, step: Callable[[str, int, int], None]) -> None:
    """Writes the three files; ``step`` is called with each tensor's name, how many are done, and how many there are."""
    wanted = parameters(plan.architecture)
    shapes = {TRANSFORMERS.parameter_name(p): TRANSFORMERS.shape(p) for p in wanted}

    def stored() -> Iterator[Array]:
        for index, parameter in enumerate(wanted):
            name = parameter.names[GOOGLE]
            step(name, index, len(wanted))
            yield TRANSFORMERS.store(parameter, source.read(name), plan.exact)

    write_safetensors(folder / WEIGHTS, shapes, stored())
    write_json(folder / CONFIG, model_config(plan))
    write_json(folder / PREPROCESSOR, preprocessor_config(plan.preprocessing))


def model_config(plan: Plan) -> dict[str, Any]:
    """config.json in transformers' terms, and what bit_ref reads beyond them.

    transformers multiplies only some of the widths by ``width_factor``, so they are given multiplied, with factor 1.
    """
    architecture = plan.architecture
    config: dict[str, Any] = {
        "model_type": "bit",
        "architectures": ["BitModel" if architecture.classes is None else "BitForImageClassification"],
        "dtype": "float32",
        "num_channels": 3,
        "embedding_size": architecture.root_width,
        "hidden_sizes": [4 * width for width in architecture.widths],
        "depths": list(architecture.units),
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "num_groups": 32,
        "width_factor": 1,
        "output_stride": 32,
        "global_padding": None,
        "embedding_dynamic_padding": False,
        "drop_path_rate": 0.0,
        "weight_standardization_eps": STANDARDIZATION_EPSILON[plan.exact],
        "exact": plan.exact,
        "pool_padding": plan.pool_padding,
    }
    if architecture.classes is not None:
        names = plan.labels or [f"LABEL_{index}" for index in range(architecture.classes)]
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
        if plan.variant and plan.variant.problem_type:
            config["problem_type"] = plan.variant.problem_type
    return config


def preprocessor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """preprocessor_config.json: resize, crop, to −1 … 1."""
    crop = preprocessing.crop
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": dict(preprocessing.size),
        "resample": preprocessing.resample,
        "do_center_crop": crop is not None,
        "crop_size": {"height": crop[0], "width": crop[1]} if crop else dict(preprocessing.size),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
