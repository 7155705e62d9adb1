"""The evidence of an audit: what readers make of the images, and how far that is from the oracle.

Readers run first and leave their tensors; the oracle then walks the checkpoint once, tensor by tensor, and each of its
layers is compared on the spot and dropped. While readers run in a process of their own, the oracle walks on, as far as
what it leaves to be compared is small. Where a library has constants of its own, the oracle with those constants walks
beside it, on the tensors that the first has read.

    reader, images → ``run_reader()`` → Run; source, images → oracle → ``gather()`` → comparisons in each Run, Evidence
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.compare import Comparison
from verify.images import Image, Images
from verify.oracles.agreement import OracleAgreement, OracleRequest
from verify.oracles.numpy import Arithmetic, NumpyOracle
from verify.oracles.numpy.threads import beside, one_thread
from verify.protocols import Expectation, HeadBlock, Layer, LibraryReader, OracleError, PoolPadding, Reader, Source
from verify.report.parity import OracleReport

Array = npt.NDArray[Any]

MAX_ERROR = 300
"""Characters of a reader's error that a report keeps."""
EXTRAS = {"transformers": "transformers", "timm": "timm", "torchvision": "transformers"}
"""Library → the extra of this package that brings it."""
HELD_BYTES = 1 << 28
"""About how many bytes of layers wait for readers that have not ended."""
HEADROOM = 4.0
"""The factor by which the oracle's values stay below the largest number of a reader's precision: not every value that
it computes is among those compared."""


@dataclass
class ReaderRun:
    """One reader's outputs, per image and without the batch axis, and what comparing them gave."""

    name: str
    unit: float
    """The rounding of what it computes in."""
    arithmetic: Arithmetic
    """The constants of the oracle that it is judged by."""
    largest: float = math.inf
    """The largest number of what it computes in."""
    outputs: list[dict[str, Array]] = field(default_factory=list)
    """The outputs of each image run by itself."""
    batches: list[tuple[range, list[dict[str, Array]]]] = field(default_factory=list)
    """Images that were run at once, and the outputs of each."""
    effective: tuple[Expectation, ...] = ()
    error: str = ""
    installed: bool = True
    comparisons: list[Comparison] = field(default_factory=list)
    same_class: dict[int, bool] = field(default_factory=dict)
    """Image → whether its largest logit is the oracle's; nothing without logits."""
    logits: tuple[Array, Array] | None = None
    """The oracle's and its own on the first image."""
    beyond: set[int] = field(default_factory=set)
    """Images on which the network's values are too large for what it computes in."""

    def results(self, image: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yields the number of images run at once, and the outputs of this one: by itself, and in each batch."""
        yield 1, self.outputs[image]
        for images, outputs in self.batches:
            if image in images:
                yield len(images), outputs[image - images.start]


@dataclass
class Evidence:
    """The results of the oracle's walk that are the same for all readers."""

    inconclusive_reasons: list[str] = field(default_factory=list)
    """The reasons why nothing can be concluded, the first first."""
    floors: dict[str, float] = field(default_factory=dict)
    """Layer → largest deviation of an element in any float32 run, over the images."""
    other_oracles: list[OracleReport] = field(default_factory=list)
    classes: int | None = None
    feature_floor: float = math.nan
    """The largest floor of the pooled features over their size; NaN where they were not reached."""
    moved: dict[Arithmetic, float] = field(default_factory=dict)
    """Constants of a library → how far they move, in float64, what the model is for; an element's, the largest."""

    def take_oracles(self, other: Evidence) -> None:
        """Takes the reports on other oracles from another walk."""
        self.other_oracles = other.other_oracles
        self.inconclusive_reasons[:0] = other.disagreements[:1]

    @property
    def disagreements(self) -> list[str]:
        return [other.reason for other in self.other_oracles if other.verdict in ("disagrees", "failed")]

    @property
    def final(self) -> str:
        """The name of the model's result: logits, or pooled features without a head."""
        return "features" if self.classes is None else "logits"


def run_reader(
    reader: Reader,
    images: Images,
    arithmetic: Arithmetic,
    misleading: str,
    step: Callable[[str], None],
) -> ReaderRun:
    """Every image through one reader by itself, and again in the batch that it came in.

    What the reader raises is kept, without the path of this machine; what ``step`` raises is raised. A library is not
    given a folder that is ``misleading``.
    """
    library = reader if isinstance(reader, LibraryReader) else None
    run = ReaderRun(reader.name, reader.unit, arithmetic, library.largest if library else math.inf)
    if why := withheld(reader, misleading):
        run.installed, run.error = False, f"it {why}"
        return run
    try:
        for image in images.singles:
            step(reader.name)
            run.outputs += _outputs(reader, image)
        for batch in images.batches:
            step(f"{reader.name}, {len(batch)} images at once")
            together = np.concatenate([images.singles[index] for index in batch])
            run.batches.append((batch, _outputs(reader, together)))
        if library:
            with _of_the_reader():
                run.effective = tuple(library.effective)
    except _ReaderError as raised:
        run.installed, run.error = not isinstance(raised.error, ImportError), _one_line(raised.error)
    finally:
        reader.close()
    return run


def withheld(reader: Reader, misleading: str) -> str:
    """Says that a reader ``is not given this folder``, which a library made elsewhere would follow; else empty."""
    is_stock = isinstance(reader, LibraryReader) and reader.stock
    return f"is not given this folder: {misleading}" if is_stock and misleading else ""


class _ReaderError(Exception):
    """An error that a reader raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _of_the_reader() -> Iterator[None]:
    """Inside, every error is the reader's, and raised as such."""
    try:
        yield
    except Exception as error:
        raise _ReaderError(error) from error


def _outputs(reader: Reader, images: Image) -> list[dict[str, Array]]:
    """The outputs of each image of a batch. Raises _ReaderError, also where they are not of so many."""
    with _of_the_reader():
        arrays = {name: np.asarray(values) for name, values in reader.run(images).items()}
        for name, values in arrays.items():
            if len(values) != len(images):
                raise ValueError(f"{name} is of {len(values)} images, not of {len(images)}")
        return [{name: values[index] for name, values in arrays.items()} for index in range(len(images))]


def _one_line(error: Exception) -> str:
    """An error in one line, of every path only the last part: a report goes where this machine is not."""
    if isinstance(error, ImportError):
        library = (error.name or "a library it needs").partition(".")[0]
        remedy = f": pip install 'bit-convert[{EXTRAS[library]}]'" if library in EXTRAS else ""
        return f"{library} is not installed{remedy}"
    text = re.sub(r"[^\s'\"(:]*[/\\](?=[^\s/\\])", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:MAX_ERROR]}" if text else type(error).__name__


def walk_length(source: Source) -> int:
    """Returns the number of layers that the oracle computes, the head included; 0 where the tensors make no BiT."""
    try:
        oracle = NumpyOracle(source)
    except OracleError:
        return 0
    return len(oracle.layer_names) + (oracle.classes is not None)


@dataclass(frozen=True)
class Walk:
    """The images and the device of the oracle's walk over a checkpoint.

    ``step`` is called with each layer before it is computed: ``walk_length()`` times.
    """

    pool_padding: PoolPadding
    images: Sequence[Image]
    step: Callable[[str], None]
    device: str = "cpu"


def done(runs: list[ReaderRun]) -> Future[list[ReaderRun]]:
    """Returns runs that have ended as those that may still be going on."""
    future: Future[list[ReaderRun]] = Future()
    future.set_result(runs)
    return future


@dataclass(frozen=True)
class Readings:
    """The runs of all readers, which may still be going on."""

    runs: Future[list[ReaderRun]]
    constants: Sequence[Arithmetic]
    """Those of the oracle that each is judged by."""

    def complete(self, images: int) -> list[ReaderRun]:
        """The runs that gave outputs for every image, when all have ended."""
        return [run for run in self.runs.result() if len(run.outputs) == images and not run.error]

    def arithmetics(self, images: int) -> list[Arithmetic]:
        """The constants of complete runs, as far as that is known, each once."""
        known = self.runs.done()
        return list(dict.fromkeys([r.arithmetic for r in self.complete(images)] if known else self.constants))

    def awaited(self, walked: Iterable[Sequence[Layer]]) -> Iterator[Sequence[Layer]]:
        """Gives layers when the runs have ended; before, keeps back ``HELD_BYTES`` of them."""
        held: list[Sequence[Layer]] = []
        size = 0
        for layers in walked:
            held.append(layers)
            size += sum(layer.truth.nbytes + sum(run.nbytes for run in layer.runs) for layer in layers)
            if self.runs.done() or size > HELD_BYTES:
                self.runs.result()
                yield from held
                held = []
        self.runs.result()
        yield from held


def gather(source: Source, walk: Walk, readings: Readings, other_oracles: Sequence[OracleRequest]) -> Evidence:
    """Walks the checkpoint with the oracle and compares every complete run, and every other oracle, with it."""
    evidence, images = Evidence(), walk.images
    if all(map(_is_constant, images)):
        why = "every image is of one colour" if images else "nothing was compared: no image"
        evidence.inconclusive_reasons.append(why)
    if not images:
        return evidence
    try:
        concerns = _walk(source, walk, readings, other_oracles, evidence)
    except OracleError as error:
        evidence.inconclusive_reasons.insert(0, f"{PurePath(source.path).name}: {error}")
        return evidence
    for run in readings.complete(len(images)):
        run.comparisons = [comparison for comparison in run.comparisons if comparison.image not in run.beyond]
    evidence.inconclusive_reasons[:0] = [*concerns, *evidence.disagreements[:1]]
    return evidence


def _walk(
    source: Source, walk: Walk, readings: Readings, requests: Sequence[OracleRequest], evidence: Evidence
) -> list[str]:
    """Compares every layer; returns what of the network, in the oracle's eyes, leaves nothing to conclude."""
    own = Arithmetic(pool_padding=walk.pool_padding)
    beside = [arithmetic for arithmetic in readings.arithmetics(len(walk.images)) if arithmetic != own]
    oracle = NumpyOracle(source, arithmetic=own, beside=beside, device=walk.device, reads_ahead=not requests)
    evidence.classes = oracle.classes
    others = [OracleAgreement(request, source, walk.pool_padding, walk.images) for request in requests]
    features: dict[Arithmetic, list[Array]] = {arithmetic: [] for arithmetic in (own, *beside)}
    rounding = _compare_trunk(_announced(oracle, walk), walk.images, readings, features, evidence, others)
    runs = readings.complete(len(walk.images))
    known = [*oracle.layer_names, *(["logits"] if oracle.classes is not None else [])]
    for run in runs:
        run.comparisons[:0] = _unknown(run, known)
    if oracle.classes is not None:
        walk.step(f"{oracle.name}, logits")
        with one_thread():
            _compare_logits(_heads(oracle, features, rounding, runs), list(features), runs, evidence, others)
    else:
        for arithmetic, values in features.items():
            evidence.moved[arithmetic] = compare.peak(np.array(values) - np.array(features[own]))
    evidence.other_oracles = [other.report() for other in others]
    return [f"{name} {concern}" for name, concern in oracle.concerns.items()]


def _floors_beside(layer: Layer, first: Layer, floors: tuple[float, float]) -> tuple[float, float]:
    """The floors of a tensor computed with other constants than the first oracle's.

    Float32 rounds with any constants alike, in relation to the size of a tensor: so one float32 run suffices beside
    the floors of the first oracle.
    """
    if layer is first:
        return floors
    size = compare.norm(first.truth)
    share = compare.norm(layer.truth) / size if size else 0.0
    own = compare.rounding(layer.truth, layer.runs)
    return float(np.maximum(own[0], share * floors[0])), float(np.maximum(own[1], share * floors[1]))


def _unknown(run: ReaderRun, known: Container[str]) -> list[Comparison]:
    """Returns a comparison for each tensor of a reader that the checkpoint's network does not have."""
    return [
        compare.misshapen(name, image, values.shape, None, 0.0, 0.0)
        for image, outputs in enumerate(run.outputs)
        for name, values in outputs.items()
        if name not in known
    ]


def _announced(oracle: NumpyOracle, walk: Walk) -> Iterator[Sequence[Layer]]:
    """Yields the oracle's layers; the walk's ``step`` is called with the name of each before it is computed."""
    names = iter(oracle.layer_names)
    walk.step(f"{oracle.name}, {next(names)}")
    for layers in oracle.walk(walk.images):
        yield layers
        if layers[0].image == len(walk.images) - 1 and (name := next(names, None)):
            walk.step(f"{oracle.name}, {name}")


def _compare_trunk(
    walked: Iterable[Sequence[Layer]],
    images: Sequence[Image],
    readings: Readings,
    features: Mapping[Arithmetic, list[Array]],
    evidence: Evidence,
    others: Sequence[OracleAgreement],
) -> Array:
    """Rules 1 and 4 on every layer of every image; images of one colour may have useless floors.

    Fills ``features`` with those of each image. Returns the mean squared rounding of each pooled feature of the first
    arithmetic, (images, channels).
    """
    roundings: list[Array] = []
    for layers in readings.awaited(walked):
        with one_thread():
            layer, excused = layers[0], _is_constant(images[layers[0].image])
            floors = compare.rounding(layer.truth, layer.runs)
            for other in others:
                other.compare(layer, floors[0])
            _note_floor(evidence, layer.name, floors[1])
            if layer.name == "features":
                _note_features(layer, floors[0], excused, evidence)
                roundings.append(np.mean([(run - layer.truth) ** 2 for run in layer.runs], axis=0))
                for values, each in zip(features.values(), layers, strict=True):
                    values.append(each.truth)
            for arithmetic, each in zip(features, layers, strict=True):
                limits = _floors_beside(each, layer, floors)
                for run in readings.complete(len(images)):
                    if run.arithmetic == arithmetic:
                        _compare_layer(run, each, limits)
    return np.array(roundings)


def _note_features(layer: Layer, floor: float, excused: bool, evidence: Evidence) -> None:
    """Keeps the largest floor of the features, and says where it is useless; not of an image that is ``excused``."""
    if excused:
        return
    evidence.feature_floor = _larger(evidence.feature_floor, floor, compare.norm(layer.truth))
    if compare.useless_floor(layer.truth, floor):
        evidence.inconclusive_reasons.append(
            f"image {layer.image + 1}: float32 alone moves the features by {floor:.1e}, too far to judge by"
        )


def _compare_layer(run: ReaderRun, layer: Layer, floors: tuple[float, float]) -> None:
    """Rule 1 on one layer of one image, by itself and in batches."""
    if math.isfinite(run.largest) and compare.peak(layer.truth) > run.largest / HEADROOM:
        run.beyond.add(layer.image)
    for batch, outputs in run.results(layer.image):
        if layer.name in outputs:
            values = outputs[layer.name].reshape(-1) if layer.name == "features" else outputs[layer.name]
            comparison = compare.trunk(layer.name, layer.image, values, layer.truth, floors, run.unit)
        elif outputs.keys() != {"logits"}:
            comparison = compare.misshapen(layer.name, layer.image, None, layer.truth.shape, 0.0, floors[1])
        else:
            continue
        run.comparisons.append(replace(comparison, batch=batch))


@dataclass(frozen=True)
class _Heads:
    """The source's head in float64 on the features of every oracle, and on those that the runs give."""

    truth: Array
    """(images, classes): the first oracle's logits."""
    runs: Array
    """(float32 runs, images, classes)."""
    propagated: Array
    """(images, classes): the features' rounding as it reaches each logit, squared."""
    values: Array
    """(rows, classes), and below the sums of the terms' absolute values."""
    scales: Array
    rows: Mapping[tuple[Any, ...], int]
    """(constants, image) of an oracle, or (run, image, batch) → row."""
    features: int

    def of(self, arithmetic: Arithmetic, image: int, first: bool) -> compare.Logits:
        """Returns the logits of the oracle with these constants; its float32 runs are off as the first oracle's."""
        row = self.rows[arithmetic, image]
        exact = self.truth[image] if first else self.values[row]
        deviations = self.runs[:, image] - self.truth[image]
        return compare.Logits(exact, exact + deviations, self.scales[row], self.propagated[image])

    def own(self, index: int, image: int, run: ReaderRun) -> dict[int, compare.OwnLogits]:
        """Returns batch → the logits from the run's own features, where it gives them."""
        keys = {batch: (index, image, batch) for batch, _ in run.results(image)}
        return {
            batch: compare.OwnLogits(self.values[self.rows[key]], self.scales[self.rows[key]], self.features)
            for batch, key in keys.items()
            if key in self.rows
        }

    def moved(self, arithmetic: Arithmetic) -> float:
        """Returns how far these constants move a logit from the first oracle's, at most."""
        rows = [self.rows[arithmetic, image] for image in range(len(self.truth))]
        return compare.peak(self.values[rows] - self.values[: len(self.truth)])


def _heads(
    oracle: NumpyOracle, features: Mapping[Arithmetic, Sequence[Array]], rounding: Array, runs: Sequence[ReaderRun]
) -> _Heads:
    truths = {(arithmetic, image): vector for arithmetic, all_ in features.items() for image, vector in enumerate(all_)}
    own = {
        (index, image, batch): outputs["features"].reshape(-1).astype(np.float64)
        for index, run in enumerate(runs)
        for image in range(len(run.outputs))
        for batch, outputs in run.results(image)
        if "features" in outputs and outputs["features"].size == rounding.shape[1]
    }
    vectors = np.stack([*truths.values(), *own.values()])

    def part(block: HeadBlock) -> tuple[Array, ...]:
        return (
            block.truth,
            block.runs,
            rounding @ block.kernel**2,
            vectors @ block.kernel + block.bias,
            np.abs(vectors) @ np.abs(block.kernel) + np.abs(block.bias),
        )

    parts = beside(part, oracle.head_blocks())
    truth, z_runs, propagated, values, scales = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    rows = {key: row for row, key in enumerate([*truths, *own])}
    return _Heads(truth, z_runs, propagated, values, scales, rows, vectors.shape[1])


def _compare_logits(
    heads: _Heads,
    constants: Sequence[Arithmetic],
    runs: Sequence[ReaderRun],
    evidence: Evidence,
    others: Sequence[OracleAgreement],
) -> None:
    """Rule 2 for readers that give their features, rule 3 for those that give logits alone."""
    for other in others:
        other.compare_logits(heads.truth, heads.runs, heads.scales[: len(heads.truth)])
    for arithmetic in constants:
        evidence.moved[arithmetic] = heads.moved(arithmetic)
        first = arithmetic == constants[0]
        for image, truth in enumerate(heads.truth):
            logits = heads.of(arithmetic, image, first)
            if first:
                _note_floor(evidence, "logits", compare.peak(heads.runs[:, image] - truth))
            for index, run in enumerate(runs):
                if run.arithmetic == arithmetic:
                    _compare_logits_of(run, image, logits, heads.own(index, image, run), truth)


def _compare_logits_of(
    run: ReaderRun, image: int, logits: compare.Logits, projected: Mapping[int, compare.OwnLogits], truth: Array
) -> None:
    """One reader's logits of one image, by itself and in batches; ``truth`` are those of the source's constants."""
    for batch, outputs in run.results(image):
        if "logits" not in outputs:
            floor = compare.peak(logits.runs - logits.truth)
            comparison = compare.misshapen("logits", image, None, logits.truth.shape, 0.0, floor)
        elif batch in projected:
            comparison = compare.head(image, outputs["logits"], logits, projected[batch], run.unit)
        else:
            comparison = compare.logits_alone(image, outputs["logits"], logits, run.unit)
        run.comparisons.append(replace(comparison, batch=batch))
    alone = run.outputs[image].get("logits")
    if alone is not None and alone.shape == truth.shape:
        if run.logits is None:
            run.logits = (truth, alone)
        run.same_class[image] = bool(alone.argmax() == truth.argmax())


def _note_floor(evidence: Evidence, name: str, floor: float) -> None:
    """Keeps the largest floor of a layer over the images; the first one that is no number is a reason."""
    if not math.isfinite(floor) and all(math.isfinite(other) for other in evidence.floors.values()):
        evidence.inconclusive_reasons.insert(0, f"{name} is not finite in float32")
    evidence.floors[name] = max(evidence.floors.get(name, 0.0), math.inf if math.isnan(floor) else floor)


def _larger(known: float, floor: float, size: float) -> float:
    share = floor / size if size else (0.0 if floor == 0 else math.inf)
    return share if math.isnan(known) else max(known, share)


def _is_constant(image: Image) -> bool:
    """Whether each of the three channels holds a single value: such an image makes floors useless."""
    planes = image[0].reshape(3, -1)
    return bool((planes == planes[:, :1]).all())
