"""What installed libraries get from a folder's files: honest ones give Google's pixels, and wrong ones are named."""

import json
from dataclasses import replace

import numpy as np
import pytest

from converters.auditing.effective_values import effective
from converters.catalogue import variants as catalogue
from converters.folder.config import model_config, preprocessor_config, timm_config
from converters.folder.plan import Plan
from converters.mapping.storage import Storage
from verify.pixels import LIBRARY_LIMIT, LIBRARY_MEAN, kinds, library_difference

SQUASHED, CROPPED = "BiT-M-R50x1-ILSVRC2012", "distill/R50x1_224"


def written(folder, name, layout, size=None, **changes):
    """A folder's configs, some fields of them others, and the plan that they are of."""
    variant = catalogue.find(name)[0]
    if size is not None:
        variant = replace(variant, preprocessing=replace(variant.preprocessing, size=size))
    plan = Plan(name, variant.network, variant, Storage(layout))
    config = model_config(plan) if layout == "transformers" else timm_config(plan)
    files = {"config.json": config, "preprocessor_config.json": preprocessor_config(plan.preprocessing)}
    for file, fields in changes.items():
        files[file + ".json"] = fields(files.get(file + ".json"))
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content))
    return folder, plan


def unmet(folder, plan):
    return {each.place: each.found for each in effective(folder, plan) if not each.met}


@pytest.mark.parametrize("layout", ["transformers", "timm"])
@pytest.mark.parametrize(("name", "size"), [(SQUASHED, None), (CROPPED, None), (SQUASHED, {"height": 96, "width": 64})])
def test_honest_folders_give_google_s_pixels(tmp_path, name, size, layout):
    folder, plan = written(tmp_path, name, layout, size)
    found = effective(folder, plan)
    assert [each for each in found if not each.met] == []
    assert len(found) == 2
    assert any("pixels" in each.place for each in found)


@pytest.mark.parametrize(
    "fields",
    [
        {"resample": 3}, {"image_mean": [0.5, 0.5, 0.502]}, {"rescale_factor": 1 / 256}, {"do_rescale": False},
        {"size": {"height": 478, "width": 480}}, {"do_normalize": False}, {"image_std": [0.5, 0.51, 0.5]},
        {"do_resize": False},
    ],
    ids=str,
)  # fmt: skip
def test_another_preparation_is_found_in_transformers(tmp_path, fields):
    folder, plan = written(tmp_path, SQUASHED, "transformers", preprocessor_config=lambda content: content | fields)
    assert list(unmet(folder, plan)) == ["transformers: pixels of the folder's processor"]


def test_a_processor_that_shadows_another_is_what_counts(tmp_path):
    shadow = {"image_processor": preprocessor_config(catalogue.find(CROPPED)[0].preprocessing)}
    folder, plan = written(tmp_path, SQUASHED, "transformers", processor_config=lambda _: shadow)
    assert (
        "shape (3, 224, 224), not (3, 480, 480)"
        in unmet(folder, plan)["transformers: pixels of the folder's processor"]
    )


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"interpolation": "bicubic"}, "timm: pixels of its transform"),
        ({"crop_mode": "center", "crop_pct": 0.9}, "timm: pixels of its transform"),
        ({"input_size": [3, 448, 448]}, "timm: pixels of its transform"),
        ({"mean": [0.485, 0.456, 0.406]}, "timm: what images become"),
        ({"mean": None}, "timm: what images become"),
        ({"input_size": [1, 480, 480]}, "timm: what images become"),
    ],
    ids=str,
)
def test_another_preparation_is_found_in_timm(tmp_path, fields, place):
    def change(content):
        return content | {"pretrained_cfg": content["pretrained_cfg"] | fields}

    folder, plan = written(tmp_path, SQUASHED, "timm", config=change)
    assert place in unmet(folder, plan)


def test_nothing_is_compared_of_layouts_without_a_library(tmp_path):
    folder, plan = written(tmp_path, SQUASHED, "transformers")
    assert effective(folder, replace(plan, storage=Storage("original"))) == []


@pytest.mark.parametrize(("step", "passes"), [(1, True), (2, True), (3, False)])
def test_single_pixels_may_be_off_by_two_steps_of_uint8(step, passes):
    """torchvision's fixed point gave 2 at the most, and 0.09 on average, on all recipes and kinds of images."""
    _, image = kinds()[0]
    size = {"height": 60, "width": 70}
    from verify.pixels import google_pixels

    pixels = google_pixels(np.asarray(image), size, None, 2)
    pixels[0, 3, 4] += step / 127.5
    assert (library_difference(pixels, image, size, None, 2) == "") is passes
    assert LIBRARY_MEAN < LIBRARY_LIMIT
    everywhere = google_pixels(np.asarray(image), size, None, 2) + np.float32(0.5 / 127.5)
    assert "on average" in library_difference(everywhere, image, size, None, 2)
