"""The diagnosis of a port that did not pass: which tensor or layer is wrong, and in which known way.

Stored values that differ are held against the changes that ports make. Then each layer is run in float64 from the
model's own input to it, so that a fault in one unit is not blamed on those after it; a layer that departs although its
stored values are right is run again with each known wrong arithmetic, and with its tensors changed in each known way,
to see which of them gives what the model gives. Nothing here changes a verdict.

    stored.check → ``stored_faults()``; Run, oracle → ``computed_faults()`` → Fault …
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.changes import REORDERINGS, REVALUATIONS, Spatial, bfloat16, float16, identify
from verify.evidence import Run
from verify.faults import Fault
from verify.head_diagnosis import head_faults
from verify.oracles.numpy import Arithmetic, NumpyOracle
from verify.protocols import Correspondence, Layer, OracleError, Source, Tensors
from verify.steps import Steps
from verify.stored import Account, Stored
from verify.variants import VARIANTS, Variant

Array = npt.NDArray[Any]

LISTED = 8
"""Tensors with the same fault that are listed; more become one line."""
EXPLAINED = 3
"""Departing layers whose arithmetic is looked for; the others are compared with what was found."""
MOST = 0.8
"""The share of tensors with values of unknown origin that makes another checkpoint."""
CONVINCING = 0.5
"""A candidate that comes within half a limit is not bettered by another."""
PARTNERS = 40
"""Tensors of one shape that are tried in place of another."""
BUDGET = 12 * 10**11
"""Multiply-adds, about, that the search for wrong arithmetics may take, one layer no more than half of them: enough at
224 for all that is known in any three units of R50x1, and for every one of VARIANTS in the widest of R152x4. Work is
counted, not time, so that a report is the same wherever it is made."""
PREPARATION = 128
"""Multiply-adds that reading, changing and standardising one value of a kernel is worth."""
SHIFTS = 3
"""Ways in which the channels of one axis are put in another order."""


# What is stored


def stored_faults(accounts: Stored, source: Source, step: Steps) -> list[Fault]:
    """A fault for each tensor that is not what it must be; many of one kind become one, with their number."""
    homes = {account.must: account.pair for account in accounts.accounts}
    wrong = [account for account in accounts.accounts if not account.exact]
    step.expect(len(wrong))
    found = []
    for account in wrong:
        step(f"diagnosis, {account.pair.target}")
        found.append(_stored_fault(account, homes, source))
    unknown = [fault for fault in found if fault.kind == "other values"]
    if len(unknown) > 2 and len(unknown) >= MOST * len(accounts.accounts):
        detail = f"{len(unknown)} of {len(accounts.accounts)} tensors hold values of unknown origin"
        found = [Fault("other checkpoint", "every tensor", detail)]
    unbalanced = [
        Fault("missing tensor" if account.missing else "unexpected tensor", account.name, account.text)
        for account in accounts.unbalanced
    ]
    return _condensed(unbalanced + found)


def _stored_fault(account: Account, homes: Mapping[str, Correspondence], source: Source) -> Fault:
    pair, other = account.pair, homes.get(account.holds)
    expected, stored = pair.expected(), pair.stored()
    if other is not None and not (stored == stored.reshape(-1)[0]).all():
        return Fault("swapped tensors", pair.target, f"holds what {other.target} must hold")
    spatial = spatial_axes(source.shapes[pair.source], expected.shape)
    difference = identify(stored, expected, spatial, class_axis(pair.source, source, expected.shape))
    return Fault(difference.kind, pair.target, difference.detail)


def spatial_axes(google: tuple[int, ...], shape: tuple[int, ...]) -> Spatial:
    """Where height and width are in a kernel of ``shape`` that Google stores as ``google`` (HWIO)."""
    if len(shape) != 4 or len(google) != 4:
        return None
    return (2, 3) if shape[2:] == google[:2] else (0, 1)


def class_axis(name: str, source: Source, shape: tuple[int, ...]) -> int | None:
    if not name.startswith("resnet/head/"):
        return None
    classes = source.shapes[name][-1]
    return shape.index(classes) if classes in shape else None


def _condensed(faults: Sequence[Fault]) -> list[Fault]:
    """Faults in the order of the tensors; a kind that more than LISTED have is said once."""
    kinds = {kind: list(group) for kind, group in _by_kind(faults)}
    result = []
    for fault in faults:
        group = kinds[fault.kind]
        if len(group) <= LISTED:
            result.append(fault)
        elif fault is group[0]:
            result.append(Fault(fault.kind, fault.place, f"{fault.detail}; and so {len(group) - 1} more tensors"))
    return result


def _by_kind(faults: Sequence[Fault]) -> Iterator[tuple[str, Iterable[Fault]]]:
    def kind(fault: Fault) -> str:
        return fault.kind

    return groupby(sorted(faults, key=kind), key=kind)


# What is computed

Build = Callable[[str], NumpyOracle]
"""Makes the oracle that computes a layer in a wrong way."""
Rounding = Callable[[Array], Array]

ROUNDED_LAYERS: tuple[tuple[str, Rounding], ...] = (
    ("weights through float16", float16),
    ("weights through bfloat16", bfloat16),
)


@dataclass(frozen=True)
class _Departure:
    """A layer that, from the model's own input, does not give what the model gives."""

    name: str
    inputs: Sequence[Array]
    outputs: Sequence[Array]
    limits: Sequence[float]
    norms: Sequence[float]
    ratios: Sequence[float]
    relative: float
    """The largest error over the size of the tensor."""
    misshapen: str
    """How the shape is another; empty where it is not."""

    @property
    def worst_first(self) -> list[int]:
        """The images, the one that departs most first: it refutes most candidates alone."""
        return sorted(range(len(self.ratios)), key=lambda image: -self.ratios[image])

    def miss(self, image: int, layer: Layer) -> float:
        """How far another arithmetic is from what the model gave, in limits."""
        if layer.truth.shape != self.outputs[image].shape:
            return math.inf
        size = self.norms[image]
        allowance = max(1.0, compare.norm(layer.truth) / size if size else 1.0)
        limit = self.limits[image] * allowance
        error = compare.norm(self.outputs[image] - layer.truth) / limit if limit else math.inf
        return error if math.isfinite(error) else math.inf


class Changed:
    """A source some of whose tensors are others."""

    def __init__(self, source: Tensors, tensors: Mapping[str, Array]) -> None:
        self.source, self.shapes, self.tensors = source, source.shapes, tensors

    def read(self, name: str) -> Array:
        return self.tensors[name].copy() if name in self.tensors else self.source.read(name)


def computed_faults(
    oracle: NumpyOracle, source: Source, images: Sequence[Array], run: Run, stored_wrong: Sequence[str], step: Steps
) -> list[Fault]:
    """What a reader computes that does not follow from the source's tensors.

    ``stored_wrong`` are source tensors whose stored values are wrong: a layer that has one is explained by it.
    """
    if run.error:
        return [Fault("cannot run", run.name, run.error)] if run.installed else []
    misshapen = next((c for c in run.comparisons if not c.passed and not np.isfinite(c.error)), None)
    excused = {_layer_of(name) for name in stored_wrong}
    departures = [d for d in _departures(oracle, images, run, step) if d.name not in excused]
    faults = _explained(oracle, source, departures, step)
    if "logits" not in excused and misshapen is None:
        step.expect(1)
        step("diagnosis, logits from the model's own features")
        faults += head_faults(oracle, source, run)
    if not faults and misshapen is not None and not stored_wrong:
        return [Fault("other shape", misshapen.name, misshapen.detail)]
    first = next((c for c in run.comparisons if not c.passed), None)
    if not faults and first is not None and not stored_wrong:
        faults.append(Fault("rounding", first.name, f"{first.ratio:.2g} floors, and no layer departs by itself"))
    return faults


def _layer_of(tensor: str) -> str:
    """resnet/block1/unit01/a/group_norm/gamma → block1/unit01."""
    parts = tensor.split("/")
    if parts[1] == "root_block":
        return "root"
    if parts[1] == "head":
        return "logits"
    return "norm" if parts[1] == "group_norm" else "/".join(parts[1:3])


def _tensors_of(layer: str, source: Tensors) -> list[str]:
    return [name for name in source.shapes if _layer_of(name) == layer and layer != "features"]


def _departures(oracle: NumpyOracle, images: Sequence[Array], run: Run, step: Steps) -> Iterator[_Departure]:
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
            yield _departure(name, before, after, layers, comparisons)
        if not all(math.isfinite(comparison.error) for comparison in comparisons):
            return
        before = after


def _departure(
    name: str,
    before: Sequence[Array],
    after: Sequence[Array],
    layers: Sequence[Layer],
    comparisons: Sequence[compare.Comparison],
) -> _Departure:
    norms = [compare.norm(layer.truth) for layer in layers]
    return _Departure(
        name=name,
        inputs=before,
        outputs=after,
        limits=[comparison.limit for comparison in comparisons],
        norms=norms,
        ratios=[comparison.ratio for comparison in comparisons],
        misshapen=next(
            (c.detail for c in comparisons if not math.isfinite(c.error) and c.detail.startswith("shape")), ""
        ),
        relative=max(c.error / size if size else 0.0 for c, size in zip(comparisons, norms, strict=True)),
    )


def _explained(oracle: NumpyOracle, source: Source, departures: Sequence[_Departure], step: Steps) -> list[Fault]:
    faults: list[Fault] = []
    known: list[tuple[Fault, Build, list[str]]] = []
    tried, left, cuts = 0, BUDGET, ""
    for departure in departures:
        again = next((others for _, build, others in known if _score(build, departure) <= 1), None)
        if again is not None:
            again.append(departure.name)
            continue
        if tried == EXPLAINED:
            break
        tried += 1
        if not all(np.isfinite(output).all() for output in departure.outputs):
            faults.append(Fault("not a number", departure.name, "the model gives values that are not finite"))
            break
        best, spent, cut = _best(oracle, source, departure, min(left, BUDGET // 2), step)
        left -= spent
        cuts = cuts or cut
        if best is not None:
            fault, build = best
            known.append((Fault(fault.kind, fault.place, fault.detail + cut), build, []))
        elif departure.misshapen:
            faults.append(Fault("other shape", departure.name, departure.misshapen))
            break
        else:
            detail = f"{max(departure.ratios):.3g} floors from its own input, where 4 are allowed{cut}"
            faults.append(Fault("unknown arithmetic", departure.name, detail))
    named = [
        Fault(fault.kind, fault.place, fault.detail + (f"; and so {len(others)} later layers" if others else ""))
        for fault, _, others in known
    ]
    if not named and len(faults) == EXPLAINED and all(2.0**-14 < d.relative < 2.0**-5 for d in departures):
        worst = max(d.relative for d in departures)
        detail = f"every layer is off by up to {worst:.0e} of its size{cuts}"
        return [Fault("reduced precision", faults[0].place, detail)]
    return named + faults


def _score(build: Build, departure: _Departure) -> float:
    """The largest miss of a candidate over the images; infinite where it can already be refuted."""
    oracle, worst = build(departure.name), 0.0
    for image in departure.worst_first:
        try:
            (layer,) = oracle.layer(departure.name, [departure.inputs[image][None]])
        except (OracleError, ValueError):
            return math.inf
        worst = max(worst, departure.miss(image, layer))
        if worst > 1:
            return math.inf
    return worst


def _best(
    oracle: NumpyOracle, source: Source, departure: _Departure, budget: int, step: Steps
) -> tuple[tuple[Fault, Build] | None, int, str]:
    """The candidate that comes nearest to what the model gave, where that is within the limits of rounding.

    With it what of the budget was spent, and where it did not suffice, that in words.
    """
    best, found, tried = math.inf, None, 0
    work, candidates = _work(source, departure), _candidate_count(source, departure.name)
    expected = min(budget // work, candidates)
    step.expect(expected)
    for fault, build in _candidates(oracle.arithmetic, source, departure.name):
        if tried == expected:
            return found, tried * work, f"; the search was cut after {tried} of some {candidates} known faults"
        tried += 1
        step(f"diagnosis, {departure.name}: {fault.kind}?")
        score = _score(build, departure)
        if score < best:
            best, found = score, (fault, build)
        if score < CONVINCING:
            break
    step.skip(expected - tried)
    return found, tried * work, ""


def _work(source: Source, departure: _Departure) -> int:
    """Multiply-adds, about, of one candidate on one image."""
    values = sum(math.prod(source.shapes[name]) for name in _tensors_of(departure.name, source))
    return max(1, values) * (math.prod(departure.outputs[0].shape[1:]) + PREPARATION)


def _candidate_count(source: Source, layer: str) -> int:
    """How many candidates there are at most."""
    count = len(VARIANTS) + len(ROUNDED_LAYERS)
    for name in _tensors_of(layer, source):
        shape = source.shapes[name]
        count += len(REORDERINGS) + len(REVALUATIONS) + SHIFTS * len(shape) + len(_partners(name, source))
    return count


def _candidates(right: Arithmetic, source: Source, layer: str) -> Iterator[tuple[Fault, Build]]:
    for variant in VARIANTS:
        yield Fault(variant.kind, layer, variant.detail), partial(_variant_oracle, variant, source, right)
    for detail, change in ROUNDED_LAYERS:
        yield Fault("reduced precision", layer, detail), partial(_rounded_oracle, change, source, right)
    for fault, tensors in _changed_tensors(source, layer):
        yield fault, partial(_changed_oracle, tensors, source, right)


def _variant_oracle(variant: Variant, source: Source, right: Arithmetic, layer: str) -> NumpyOracle:
    return variant.oracle(source, right)


def _rounded_oracle(change: Rounding, source: Source, right: Arithmetic, layer: str) -> NumpyOracle:
    return _changed_oracle(
        {name: change(source.read(name)) for name in _tensors_of(layer, source)}, source, right, layer
    )


def _changed_oracle(tensors: Mapping[str, Array], source: Source, right: Arithmetic, layer: str) -> NumpyOracle:
    return NumpyOracle(Changed(source, tensors), float32_runs=0, arithmetic=right)


def _changed_tensors(source: Source, layer: str) -> Iterator[tuple[Fault, Mapping[str, Array]]]:
    """The tensors of a layer, one at a time, changed in each known way: the likelier ways first, for all tensors."""
    names = _tensors_of(layer, source)
    for change, name in product((*REORDERINGS, *REVALUATIONS), names):
        right = source.read(name)
        wrong = np.ascontiguousarray(change.apply(right, (0, 1) if right.ndim == 4 else None))
        if wrong.shape == right.shape and not np.array_equal(wrong, right):
            yield Fault(change.kind, name, change.detail), {name: wrong}
    for name in names:
        for other in _partners(name, source):
            tensors = {name: source.read(other)} | ({other: source.read(name)} if other in names else {})
            yield Fault("swapped tensors", name, f"computed with {other} in its place"), tensors
    for name in names:
        for detail, wrong in _reordered(source.read(name)):
            yield Fault("permuted channels", name, detail), {name: wrong}


def _partners(name: str, source: Source) -> list[str]:
    """The tensors that could stand in place of another."""
    shape = source.shapes[name]
    return [other for other, others in source.shapes.items() if others == shape and other != name][:PARTNERS]


def _reordered(right: Array) -> Iterator[tuple[str, Array]]:
    """SHIFTS ways for each axis."""
    for axis, length in enumerate(right.shape):
        if length > 1:
            yield f"axis {axis} reversed", np.flip(right, axis)
            yield f"axis {axis} shifted by 1", np.roll(right, 1, axis)
            yield f"axis {axis} shifted by -1", np.roll(right, -1, axis)
