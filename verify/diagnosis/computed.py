"""The diagnosis of a port that did not pass: which tensor or layer is wrong, and in which known way.

Stored values that differ are held against the changes that ports make. Then each layer is run in float64 from the
model's own input to it, so that a fault in one unit is not blamed on those after it; a layer that is wrong although its
stored values are right is run again with each known wrong arithmetic, and with its tensors changed in each known way,
to see which of them gives what the model gives. Nothing here changes a verdict.

    stored.check → ``stored_faults()``; Run, oracle → ``computed_faults()`` → Fault …
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.diagnosis.arithmetic import FAMILIES, Family, parts_of
from verify.diagnosis.candidates import (
    Build,
    Candidate,
    candidate_count,
    candidates,
    layer_of,
    tensors_of,
)
from verify.diagnosis.changes import Spatial, identify
from verify.diagnosis.head import head_faults
from verify.diagnosis.right_steps import RightSteps, SharingOracle
from verify.faults import Fault, Kind
from verify.forward import ReaderRun
from verify.oracles.numpy import Arithmetic, NumpyOracle
from verify.protocols import Correspondence, Layer, OracleError, Source
from verify.steps import Steps
from verify.weights import ComparedTensor, Stored

Array = npt.NDArray[Any]

LISTED = 8
"""Faults of one kind in stored tensors that are listed; more become one line."""
EXPLAINED = 3
"""Wrong layers whose arithmetic is searched for; the others are compared with what was found."""
MOST = 0.8
"""The share of tensors with values of unknown origin that makes another checkpoint."""
CONVINCING = 0.5
"""A candidate that comes within half of what is allowed is not bettered by another."""
MATCH, NOISE = 4.0, 1.5
"""Floors that a candidate may be off at most, and those that float32 may be off: see ``_WrongLayer.allowance``."""
BUDGET = 12 * 10**11
"""Multiply-adds, about, that the search for wrong arithmetics may take, one layer no more than half of them: enough at
224 for all that is known in any unit of R50x1, and for some fifty of the likeliest in the widest of R152x4. Work is
counted, not time, so that a report is the same wherever it is made."""
PREPARATION = 128
"""Multiply-adds that reading, changing and standardising one value of a kernel is worth."""
SEARCHES = 40
"""Numbers that are tried of a fault that has one."""


# What is stored


def stored_faults(stored: Stored, source: Source, step: Steps) -> list[Fault]:
    """A fault for each thing that was done to stored tensors; one that was done to many is one, with their number."""
    homes = {tensor.expected_sha256: tensor.pair for tensor in stored.compared}
    step.expect(len(stored.differing))
    found, moved = [], []
    for tensor in stored.differing:
        step(f"diagnosis, {tensor.pair.target}")
        home = _home(tensor, homes)
        if home is None:
            found.append(_Found(_stored_fault(tensor.pair, source), tensor.pair))
        else:
            moved.append((tensor.pair, home))
    found += _moves(moved)
    unknown = [one for one in found if one.fault.kind == Kind.OTHER_VALUES]
    if len(unknown) > 2 and len(unknown) >= MOST * len(stored.compared):
        detail = f"{len(unknown)} of {len(stored.compared)} tensors hold values of unknown origin"
        return [*stored.unmatched, Fault(Kind.OTHER_CHECKPOINT, "every tensor", detail)]
    order = {tensor.pair.target: index for index, tensor in enumerate(stored.compared)}
    return [*stored.unmatched, *_condensed(sorted(found, key=lambda one: order[one.pair.target]))]


@dataclass(frozen=True)
class _Found:
    """The fault of one stored tensor, or of it and others."""

    fault: Fault
    pair: Correspondence

    @property
    def change(self) -> tuple[str, str]:
        """The change that was made: in several tensors it is one fault; orders of channels change throughout a unit."""
        permuted = self.fault.kind == Kind.PERMUTED_CHANNELS
        return self.fault.kind, layer_of(self.pair.source) if permuted else self.fault.detail


def _home(tensor: ComparedTensor, homes: Mapping[str, Correspondence]) -> Correspondence | None:
    """Returns the tensor whose values are stored in this one; None if there is none, or if all values are equal."""
    home = homes.get(tensor.stored_sha256)
    if home is None:
        return None
    stored = tensor.pair.stored()
    return None if (stored == stored.reshape(-1)[0]).all() else home


def _stored_fault(pair: Correspondence, source: Source) -> Fault:
    expected, stored = pair.expected(), pair.stored()
    spatial = spatial_axes(source.shapes[pair.source], expected.shape)
    difference = identify(stored, expected, spatial, class_axis(pair.source, source, expected.shape))
    return Fault(difference.kind, pair.target, difference.detail)


def _moves(moved: Sequence[tuple[Correspondence, Correspondence]]) -> list[_Found]:
    """Tensors in each other's places: one fault for all that moved within a layer, or between the same layers."""
    layers: dict[str, set[str]] = {}
    for pair, home in moved:
        joined = {layer_of(pair.source), layer_of(home.source)}
        for layer in list(joined):
            joined |= layers.get(layer, set())
        layers |= dict.fromkeys(joined, joined)
    groups: dict[frozenset[str], list[tuple[Correspondence, Correspondence]]] = {}
    for pair, home in moved:
        groups.setdefault(frozenset(layers[layer_of(pair.source)]), []).append((pair, home))
    return [_Found(_move(group), group[0][0]) for group in groups.values()]


def _move(group: Sequence[tuple[Correspondence, Correspondence]]) -> Fault:
    (pair, home), *others = group
    detail = f"holds what {home.target} must hold"
    back = [(there.target, here.target) for there, here in others]
    if (home.target, pair.target) in back:
        detail += ", and that what it must hold"
        back.remove((home.target, pair.target))
    if back:
        affine = all("/group_norm/" in one.source for one, _ in group)
        places = ", ".join(place for place, _ in back) if len(back) < 4 else f"{len(back)} more tensors"
        detail += f"; {'affine parameters' if affine else 'tensors'} are swapped, {places}, too"
    return Fault(Kind.SWAPPED_TENSORS, pair.target, detail)


def spatial_axes(google: tuple[int, ...], shape: tuple[int, ...]) -> Spatial:
    """Returns the axes of height and width in a kernel of ``shape`` that Google stores as ``google`` (HWIO)."""
    if len(shape) != 4 or len(google) != 4:
        return None
    return (2, 3) if shape[2:] == google[:2] else (0, 1)


def class_axis(name: str, source: Source, shape: tuple[int, ...]) -> int | None:
    if not name.startswith("resnet/head/"):
        return None
    classes = source.shapes[name][-1]
    return shape.index(classes) if classes in shape else None


def _condensed(found: Sequence[_Found]) -> list[Fault]:
    """One line for each thing that was done; a kind that more than LISTED have is said once."""
    faults = _grouped([(one.change, one.fault) for one in found])
    kinds = Counter(fault.kind for fault in faults)
    return _grouped([((f.kind, "" if kinds[f.kind] > LISTED else f.place), f) for f in faults])


def _grouped(faults: Sequence[tuple[tuple[str, str], Fault]]) -> list[Fault]:
    """The first fault of each group, with the others' places, or their number."""
    groups: dict[tuple[str, str], list[Fault]] = {}
    for key, fault in faults:
        groups.setdefault(key, []).append(fault)
    condensed = []
    for first, *others in groups.values():
        places = ", ".join(other.place for other in others) if len(others) < 3 else f"{len(others)} more tensors"
        condensed.append(replace(first, detail=first.detail + (f"; and so {places}" if others else "")))
    return condensed


# What is computed


@dataclass(frozen=True)
class _WrongLayer:
    """A layer that, from the model's own input, does not give what the model gives."""

    name: str
    inputs: Sequence[Array]
    outputs: Sequence[Array]
    floors: Sequence[float]
    norms: Sequence[float]
    ratios: Sequence[float]
    relative: float
    """The largest error over the size of the tensor."""
    misshapen: str
    """The difference in shape; empty where there is none."""

    @property
    def worst_first(self) -> list[int]:
        """The images, the one with the largest error first: it refutes most candidates alone."""
        return sorted(range(len(self.ratios)), key=lambda image: -self.ratios[image])

    @property
    def allowance(self) -> float:
        """The error that a candidate may have, in floors: half of what the right arithmetic has, within bounds."""
        return min(MATCH, max(NOISE, max(self.ratios) / 2))

    def miss(self, image: int, layer: Layer) -> float:
        """Returns the distance of another arithmetic from the model's output; up to 1 it explains it."""
        if layer.truth.shape != self.outputs[image].shape:
            return math.inf
        size = self.norms[image]
        larger = max(1.0, compare.norm(layer.truth) / size if size else 1.0)
        limit = self.floors[image] * self.allowance * larger
        error = compare.norm(self.outputs[image] - layer.truth) / limit if limit else math.inf
        return error if math.isfinite(error) else math.inf


@dataclass
class _Explanation:
    """The fault that explains a layer, and the later layers that it explains as well."""

    fault: Fault
    build: Build
    others: list[str]

    @property
    def in_full(self) -> Fault:
        layers = f"{len(self.others)} later layer{'s' if len(self.others) > 1 else ''}"
        again = f"; and so {layers}" if self.others else ""
        return replace(self.fault, detail=self.fault.detail + again)


def computed_faults(
    oracle: NumpyOracle,
    source: Source,
    images: Sequence[Array],
    run: ReaderRun,
    stored_wrong: Sequence[str],
    step: Steps,
) -> list[Fault]:
    """Returns the faults of what a reader computes from right tensors.

    ``stored_wrong`` are source tensors whose stored values are wrong: a layer that has one is explained by it.
    """
    if run.error:
        return [Fault(Kind.CANNOT_RUN, run.name, run.error)] if run.installed else []
    misshapen = next((c for c in run.comparisons if not c.passed and _is_misshapen(c)), None)
    excused = {layer_of(name) for name in stored_wrong}
    wrong_layers = [d for d in _wrong_layers(oracle, images, run, step) if d.name not in excused]
    faults = _explained(oracle, source, wrong_layers, step)
    if "logits" not in excused and misshapen is None:
        step.expect(1)
        step("diagnosis, logits from the model's own features")
        faults += head_faults(oracle, source, run)
    if not faults and misshapen is not None and not stored_wrong:
        return [Fault(Kind.OTHER_SHAPE, misshapen.name, misshapen.detail)]
    first = next((c for c in run.comparisons if not c.passed), None)
    if not faults and first is not None and not stored_wrong:
        detail = f"error is {compare.in_words(first.ratio)}, and no layer exceeds its limit by itself"
        faults.append(Fault(Kind.ROUNDING, first.name, detail))
    return faults


def _is_misshapen(comparison: compare.Comparison) -> bool:
    return math.isinf(comparison.error) and comparison.detail.startswith(("shape", "the "))


def _wrong_layers(oracle: NumpyOracle, images: Sequence[Array], run: ReaderRun, step: Steps) -> Iterator[_WrongLayer]:
    """Each layer on the model's own input, first the stem on the images."""
    before = [np.asarray(image[0]) for image in images]
    step.expect(len(oracle.layer_names))
    for name in oracle.layer_names:
        step(f"diagnosis, {name} on the model's own input")
        if not all(name in outputs for outputs in run.outputs):
            return
        after = [outputs[name].reshape(-1) if name == "features" else outputs[name] for outputs in run.outputs]
        try:
            layers = oracle.layer(name, [x[None] for x in before])
        except (OracleError, ValueError):  # its input is another network's
            return
        comparisons = [
            compare.trunk(name, layer.image, output, layer.truth, compare.rounding(layer.truth, layer.runs))
            for layer, output in zip(layers, after, strict=True)
        ]
        if not all(comparison.passed for comparison in comparisons):
            yield _wrong_layer(name, before, after, layers, comparisons)
        if not all(math.isfinite(comparison.error) for comparison in comparisons):
            return
        before = after


def _wrong_layer(
    name: str,
    before: Sequence[Array],
    after: Sequence[Array],
    layers: Sequence[Layer],
    comparisons: Sequence[compare.Comparison],
) -> _WrongLayer:
    norms = [compare.norm(layer.truth) for layer in layers]
    return _WrongLayer(
        name=name,
        inputs=before,
        outputs=after,
        floors=[comparison.limit / compare.FACTOR for comparison in comparisons],
        norms=norms,
        ratios=[comparison.ratio for comparison in comparisons],
        misshapen=next(
            (c.detail for c in comparisons if not math.isfinite(c.error) and c.detail.startswith("shape")), ""
        ),
        relative=max(c.error / size if size else 0.0 for c, size in zip(comparisons, norms, strict=True)),
    )


def _explained(oracle: NumpyOracle, source: Source, wrong_layers: Sequence[_WrongLayer], step: Steps) -> list[Fault]:
    faults: list[Fault] = []
    known: list[_Explanation] = []
    tried, left, cuts = 0, BUDGET, ""
    for failing in wrong_layers:
        if not all(np.isfinite(output).all() for output in failing.outputs):
            faults.append(Fault(Kind.NOT_A_NUMBER, failing.name, "the model gives values that are not finite"))
            break
        again = _again(oracle.arithmetic, source, failing, known)
        if again is not None:
            again.others.append(failing.name)
            continue
        if tried == EXPLAINED:
            continue
        tried += 1
        best, spent, cut = _best(oracle, source, failing, min(left, BUDGET // 2), step)
        left -= spent
        cuts = cuts or cut
        if best is not None:
            fault, build = best
            known.append(_Explanation(replace(fault, detail=fault.detail + cut), build, []))
        elif failing.misshapen:
            faults.append(Fault(Kind.OTHER_SHAPE, failing.name, failing.misshapen))
            break
        else:
            detail = f"error from its own input is {compare.in_words(max(failing.ratios))}{cut}"
            faults.append(Fault(Kind.UNKNOWN_ARITHMETIC, failing.name, detail))
    named = [explanation.in_full for explanation in known]
    if not named and len(faults) == EXPLAINED and all(2.0**-14 < d.relative < 2.0**-5 for d in wrong_layers):
        worst = max(d.relative for d in wrong_layers)
        detail = f"every layer is off by up to {worst:.0e} of its size{cuts}"
        return [Fault(Kind.REDUCED_PRECISION, faults[0].place, detail)]
    return named + faults


def _again(
    right: Arithmetic, source: Source, failing: _WrongLayer, known: Sequence[_Explanation]
) -> _Explanation | None:
    """The known fault that explains this layer, too: the same arithmetic, or the same change of a tensor here."""
    for explanation in known:
        if _score(explanation.build, failing) <= 1:
            return explanation
    for explanation in known:
        for fault, build in candidates(right, source, failing.name):
            same = (fault.kind, fault.detail) == (explanation.fault.kind, explanation.fault.detail)
            if same and _score(build, failing) <= 1:
                return explanation
    return None


def _score(build: Build, failing: _WrongLayer, steps: RightSteps | None = None) -> float:
    """The largest miss of a candidate over the images; infinite where it can already be refuted.

    ``steps`` are the right ones on the image that is tried first."""
    oracle, worst = build(), 0.0
    for image in failing.worst_first:
        worst = max(worst, _miss(oracle, failing, image, steps))
        steps = None
        if worst > 1:
            return math.inf
    return worst


def _miss(oracle: SharingOracle, failing: _WrongLayer, image: int, steps: RightSteps | None = None) -> float:
    try:
        (layer,) = oracle.layer_with(steps, failing.name, [failing.inputs[image][None]])
    except (OracleError, ValueError):
        return math.inf
    return failing.miss(image, layer)


def _best(
    oracle: NumpyOracle, source: Source, failing: _WrongLayer, budget: int, step: Steps
) -> tuple[Candidate | None, int, str]:
    """The candidate that comes nearest to what the model gave, where that is within the limits of rounding.

    With it what of the budget was spent, and where it did not suffice, that in words.
    """
    best, found, tried = math.inf, None, 0
    work, count = _work(source, failing), candidate_count(source, failing.name)
    expected = min(budget // work, count)
    step.expect(expected)
    steps = RightSteps()
    for fault, build in candidates(oracle.arithmetic, source, failing.name):
        if tried == expected:
            return found, tried * work, f"; the search was cut after {tried} of some {count} known faults"
        tried += 1
        step(f"diagnosis, {failing.name}: {fault.kind}?")
        score = _score(build, failing, steps)
        if score < best:
            best, found = score, (fault, build)
        if score < CONVINCING:
            break
    step.skip(expected - tried)
    if found is None and (budget // work) - tried > SEARCHES * len(FAMILIES):
        found = _searched(oracle.arithmetic, source, failing)
        tried += SEARCHES * len(FAMILIES)
    return found, tried * work, ""


def _searched(right: Arithmetic, source: Source, failing: _WrongLayer) -> Candidate | None:
    """The fault with a number of its own (an epsilon, a slope) that gives what the model gives."""
    image = failing.worst_first[0]
    for family in FAMILIES:
        if family.part not in parts_of(failing.name):
            continue

        def missed(power: float, family: Family = family) -> float:
            return _miss(family.deviation(math.exp(power)).oracle(source, right), failing, image)

        deviation = family.deviation(
            float(f"{math.exp(_minimum(missed, math.log(family.low), math.log(family.high))):.3g}")
        )
        build = partial(deviation.oracle, source, right)
        if _score(build, failing) <= 1:
            return Fault(deviation.kind, failing.name, deviation.detail), build
    return None


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Returns the minimum of a function: the best of a grid, then golden sections around it; SEARCHES calls."""
    grid = np.linspace(low, high, SEARCHES // 2)
    values = [function(float(x)) for x in grid]
    at = int(np.argmin(values))
    low, high = float(grid[max(0, at - 1)]), float(grid[min(len(grid) - 1, at + 1)])
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    of_left, of_right = function(left), function(right)
    for _ in range(SEARCHES - SEARCHES // 2 - 2):
        if of_left <= of_right:
            high, right, of_right = right, left, of_left
            left = high - ratio * (high - low)
            of_left = function(left)
        else:
            low, left, of_left = left, right, of_right
            right = low + ratio * (high - low)
            of_right = function(right)
    return left if of_left <= of_right else right


def _work(source: Source, failing: _WrongLayer) -> int:
    """Multiply-adds, about, of one candidate on one image."""
    values = sum(math.prod(source.shapes[name]) for name in tensors_of(failing.name, source))
    return max(1, values) * (math.prod(failing.outputs[0].shape[1:]) + PREPARATION)
