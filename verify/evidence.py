"""The evidence of an audit: what readers make of the images, and how far that is from the oracle.

Readers run first and leave their tensors; the oracle then walks the checkpoint once, tensor by tensor, and each of its
layers is compared on the spot and dropped.

    reader, images → ``run_reader()`` → Run; source, images → oracle → ``gather()`` → comparisons in each Run, Evidence
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.compare import Comparison
from verify.oracles.numpy import NumpyOracle
from verify.panel import Panel, Witness
from verify.protocols import Layer, OracleError, PoolPadding, Reader, Source
from verify.report import WitnessReport

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

MAX_ERROR = 300
"""Characters of a reader's error that a report keeps."""


@dataclass
class Run:
    """One reader's outputs, per image and without the batch axis, and what comparing them gave."""

    name: str
    unit: float
    """The rounding of what it computes in."""
    outputs: list[dict[str, Array]] = field(default_factory=list)
    error: str = ""
    installed: bool = True
    comparisons: list[Comparison] = field(default_factory=list)
    top1: int | None = None
    """On how many images its largest logit is the oracle's."""
    logits: tuple[Array, Array] | None = None
    """The oracle's and its own on the first image."""


@dataclass
class Evidence:
    """What the oracle's walk brought to light, whoever is compared with it."""

    grounds: list[str] = field(default_factory=list)
    """Why nothing can be concluded."""
    floors: dict[str, float] = field(default_factory=dict)
    """Layer → largest deviation of an element in any float32 run, over the images."""
    witnesses: list[WitnessReport] = field(default_factory=list)
    classes: int | None = None
    feature_floor: float = math.nan
    """The largest floor of the pooled features over their size; NaN where they were not reached."""

    def hear(self, other: Evidence) -> None:
        """Takes over what the witnesses said on another walk."""
        self.witnesses = other.witnesses
        self.grounds[:0] = other.objections[:1]

    @property
    def objections(self) -> list[str]:
        return [witness.reason for witness in self.witnesses if witness.verdict == "objects"]

    @property
    def final(self) -> str:
        """What the model is for: logits, or pooled features without a head."""
        return "features" if self.classes is None else "logits"


def run_reader(reader: Reader, images: Sequence[Image], step: Callable[[str], None]) -> Run:
    """Every image through one reader; what it raises is kept, without the path of this machine."""
    run = Run(reader.name, reader.unit)
    try:
        for image in images:
            step(reader.name)
            outputs = reader.run(image)
            run.outputs.append({name: np.asarray(values)[0] for name, values in outputs.items()})
    except ImportError as error:
        run.installed, run.error = False, _one_line(error)
    except Exception as error:
        run.error = _one_line(error)
    finally:
        reader.close()
    return run


def _one_line(error: Exception) -> str:
    """An error in one line, of every path only the last part: a report goes where this machine is not."""
    if isinstance(error, ImportError):
        return f"{error.name or 'a library it needs'} is not installed"
    text = re.sub(r"[^\s'\"(:]*[/\\](?=[^\s/\\])", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:MAX_ERROR]}" if text else type(error).__name__


def walk_length(source: Source) -> int:
    """How many layers the oracle computes of a checkpoint, its head included; 0 of what makes no BiT."""
    try:
        oracle = NumpyOracle(source)
    except OracleError:
        return 0
    return len(oracle.layer_names) + (oracle.classes is not None)


def gather(
    source: Source,
    pool_padding: PoolPadding,
    images: Sequence[Image],
    runs: Sequence[Run],
    witnesses: Sequence[Witness],
    step: Callable[[str], None],
) -> Evidence:
    """Walks the checkpoint with the oracle and compares every complete run, and every witness, with it.

    ``step`` is called with each layer before it is computed: ``walk_length()`` times.
    """
    evidence = Evidence()
    complete = [run for run in runs if len(run.outputs) == len(images)]
    flat = [_is_constant(image) for image in images]
    if all(flat):
        evidence.grounds.append("nothing was compared: no image" if not images else "every image is of one colour")
    if not images:
        return evidence
    try:
        oracle = NumpyOracle(source, pool_padding=pool_padding)
        evidence.classes = oracle.classes
        known = [*oracle.layer_names, *(["logits"] if oracle.classes is not None else [])]
        for run in complete:
            run.comparisons += _unknown(run, known)
        panel = Panel(witnesses, source, pool_padding, images)
        walk = _announced(oracle, images, step)
        features = _compare_trunk(walk, images, complete, evidence, panel, excused=flat)
        if oracle.classes is not None:
            step(f"{oracle.name}, logits")
            _compare_logits(oracle, features, complete, evidence, panel)
        evidence.witnesses = panel.reports()
        evidence.grounds[:0] = evidence.objections[:1]
    except OracleError as error:
        evidence.grounds.insert(0, f"{PurePath(source.path).name}: {error}")
        return evidence
    evidence.grounds[:0] = [f"{name} {concern}" for name, concern in oracle.concerns.items()]
    return evidence


def _unknown(run: Run, known: Container[str]) -> list[Comparison]:
    """What a reader gives that the checkpoint's network has not: another network."""
    return [
        compare.misshapen(name, image, values.shape, None, 0.0, 0.0)
        for image, outputs in enumerate(run.outputs)
        for name, values in outputs.items()
        if name not in known
    ]


@dataclass(frozen=True)
class _Features:
    """The oracle's pooled features, (images, channels), and the mean squared rounding of each."""

    truth: Array
    rounding: Array


def _announced(oracle: NumpyOracle, images: Sequence[Image], step: Callable[[str], None]) -> Iterator[Layer]:
    """The oracle's layers; ``step`` is told of each before it is computed."""
    names = iter(oracle.layer_names)
    step(f"{oracle.name}, {next(names)}")
    for layer in oracle.layers(images):
        yield layer
        if layer.image == len(images) - 1 and (name := next(names, None)):
            step(f"{oracle.name}, {name}")


def _compare_trunk(
    walk: Iterable[Layer],
    images: Sequence[Image],
    runs: Sequence[Run],
    evidence: Evidence,
    panel: Panel,
    excused: Sequence[bool],
) -> _Features:
    """Rules 1 and 4 on every layer of every image; ``excused`` images may have useless floors."""
    truths, roundings = [], []
    for layer in walk:
        floors = compare.rounding(layer.truth, layer.runs)
        panel.hear(layer, floors[0])
        _note_floor(evidence, layer.name, floors[1])
        if layer.name == "features":
            truths.append(layer.truth)
            if not excused[layer.image]:
                evidence.feature_floor = _larger(evidence.feature_floor, floors[0], compare.norm(layer.truth))
            roundings.append(np.mean([(run - layer.truth) ** 2 for run in layer.runs], axis=0))
            if compare.useless_floor(layer.truth, floors[0]) and not excused[layer.image]:
                evidence.grounds.append(
                    f"image {layer.image + 1}: float32 alone moves the features by {floors[0]:.1e}, too far to judge by"
                )
        for run in runs:
            outputs = run.outputs[layer.image]
            if layer.name in outputs:
                values = outputs[layer.name].reshape(-1) if layer.name == "features" else outputs[layer.name]
                run.comparisons.append(compare.trunk(layer.name, layer.image, values, layer.truth, floors, run.unit))
            elif outputs.keys() != {"logits"}:
                run.comparisons.append(
                    compare.misshapen(layer.name, layer.image, None, layer.truth.shape, 0.0, floors[1])
                )
    return _Features(np.array(truths), np.array(roundings))


def _compare_logits(
    oracle: NumpyOracle, features: _Features, runs: Sequence[Run], evidence: Evidence, panel: Panel
) -> None:
    """Rule 2 for readers that give their features, rule 3 for those that give logits alone."""
    own = {
        (index, image): outputs["features"].reshape(-1).astype(np.float64)
        for index, run in enumerate(runs)
        for image, outputs in enumerate(run.outputs)
        if "features" in outputs and outputs["features"].size == features.truth.shape[1]
    }
    vectors = np.concatenate([features.truth, *(vector[None] for vector in own.values())])
    parts = [
        (
            block.truth,
            block.runs,
            vectors @ block.kernel + block.bias,
            np.abs(vectors) @ np.abs(block.kernel) + np.abs(block.bias),
            features.rounding @ block.kernel**2,
        )
        for block in oracle.head_blocks()
    ]
    truth, z_runs, values, scales, propagated = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    panel.hear_logits(truth, z_runs, scales[: len(truth)])
    rows = {key: row for row, key in enumerate(own, start=len(truth))}
    for image in range(len(truth)):
        logits = compare.Logits(truth[image], z_runs[:, image], scales[image], propagated[image])
        _note_floor(evidence, "logits", compare.peak(logits.runs - logits.truth))
        for index, run in enumerate(runs):
            outputs = run.outputs[image]
            if "logits" not in outputs:
                comparison = compare.misshapen(
                    "logits", image, None, logits.truth.shape, 0.0, evidence.floors["logits"]
                )
            elif (index, image) in rows:
                row = rows[index, image]
                projected = compare.OwnLogits(values[row], scales[row], vectors.shape[1])
                comparison = compare.head(image, outputs["logits"], logits, projected, run.unit)
            else:
                comparison = compare.logits_alone(image, outputs["logits"], logits, run.unit)
            run.comparisons.append(comparison)
            if outputs.get("logits", truth[:0]).shape == logits.truth.shape:
                if run.logits is None:
                    run.logits = (logits.truth, outputs["logits"])
                run.top1 = (run.top1 or 0) + bool(outputs["logits"].argmax() == logits.truth.argmax())


def _note_floor(evidence: Evidence, name: str, floor: float) -> None:
    """Keeps the largest floor of a layer over the images; the first one that is no number is a ground."""
    if not math.isfinite(floor) and all(math.isfinite(other) for other in evidence.floors.values()):
        evidence.grounds.insert(0, f"{name} is not finite in float32")
    evidence.floors[name] = max(evidence.floors.get(name, 0.0), math.inf if math.isnan(floor) else floor)


def _larger(known: float, floor: float, size: float) -> float:
    share = floor / size if size else (0.0 if floor == 0 else math.inf)
    return share if math.isnan(known) else max(known, share)


def _is_constant(image: Image) -> bool:
    """Whether each of the three channels holds a single value: such an image makes floors useless."""
    planes = image[0].reshape(3, -1)
    return bool((planes == planes[:, :1]).all())
