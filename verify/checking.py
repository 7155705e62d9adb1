"""The check of a report: the verdict derived again from the figures it records, and its digests from the files.

Report → ``contradictions()``; Report, digests → ``changed_files()``, ``changed_tensors()`` → a line for each thing
that does not hold
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from verify.compare import FACTOR
from verify.oracles.numpy import NAMES, STANDARDIZATION_EPSILON
from verify.report.parity import AccuracyReport, EvaluationReport, HeldOutReport, LogitReport, ReaderReport, Report
from verify.verdict import ROUNDED, derived_verdict, explained


def contradictions(report: Report) -> list[str]:
    """Everything in a report that does not follow from its own figures; nothing in one that was not edited."""
    found = [
        *_tensors(report),
        *_layers(report),
        *_readers(report),
        *_own_constants(report),
        *_oracles(report),
        *_evaluated(report),
        *_source(report),
        *_digests(report),
    ]
    if report.passed:
        found += _repeated(report)
    derived, reason = derived_verdict(report)
    if derived != report.verdict:
        found.append(f"the verdict is {report.verdict!r}, its figures say {derived!r}")
    elif reason != report.reason:
        found.append(f"the reason is {report.reason!r}, its figures say {reason!r}")
    if report.passed and report.faults:
        found.append("it passed with faults")
    return found


def changed_files(report: Report, files: Callable[[str], str | None]) -> list[str]:
    """Files that are not those of the report; ``files`` gives the sha256 of one, None where it is missing."""
    found = []
    for name, recorded in report.files.items():
        actual = files(name)
        if actual != recorded:
            found.append(f"{name} is missing" if actual is None else f"{name} is another file: sha256 {actual}")
    return found


def changed_tensors(report: Report, tensors: Mapping[str, str]) -> list[str]:
    """Stored tensors that are not those of the report; ``tensors`` are the digests of those that are there."""
    changed = [weight.name for weight in report.weights if tensors.get(weight.name) != weight.sha256]
    return [f"{name} holds other values than the report recorded" for name in changed]


def _tensors(report: Report) -> Iterator[str]:
    tensors, weights = report.tensors, report.weights
    if sum(weight.bit_exact for weight in weights) != tensors.bit_exact:
        yield f"{tensors.bit_exact} tensors are said to be bit-exact, {sum(w.bit_exact for w in weights)} are listed"
    whole = tensors.source == tensors.used and tensors.target == tensors.filled == tensors.bit_exact == len(weights)
    if whole == bool(report.misfits):
        yield f"{len(report.misfits)} misfits beside {tensors.bit_exact} of {tensors.target} bit-exact tensors"
    if len({weight.name for weight in weights}) != len(weights):
        yield "a tensor is listed twice"


def _layers(report: Report) -> Iterator[str]:
    for layer in report.layers:
        if layer.error is None or not layer.limit:
            continue
        if not _near(layer.ratio, FACTOR * layer.error / layer.limit):
            yield f"{layer.name}: the ratio {layer.ratio} is not {FACTOR:g} × {layer.error} / {layer.limit}"
    ratios = [layer.ratio for layer in report.layers if layer.ratio is not None]
    if report.ratio is not None and not _near(report.ratio, max(ratios, default=0.0)):
        yield f"the ratio {report.ratio} is not the largest of the layers', {max(ratios, default=0.0)}"
    if report.readers and report.readers[0].ratio != report.ratio:
        yield f"the ratio {report.ratio} is not that of {report.readers[0].name}"


def _readers(report: Report) -> Iterator[str]:
    for reader in report.readers:
        beyond = reader.ratio is None or reader.ratio > FACTOR * (1 + ROUNDED)
        if reader.verdict == "passed" and (beyond or reader.exceeds_limit_at):
            place = reader.exceeds_limit_at or "no tensor"
            yield f"{reader.name} passed with the ratio {reader.ratio}, and exceeds its limit at {place}"
        if reader.top1 is not None and not 0 <= reader.top1 <= len(report.images):
            yield f"{reader.name} agrees on {reader.top1} of {len(report.images)} images"
        elif not _possible_share(reader, report):
            yield f"{reader.name} agrees on {reader.real_top1} of {report.real_images} real images"


def _possible_share(reader: ReaderReport, report: Report) -> bool:
    """Whether so many real images can be among all on which a reader agrees."""
    if reader.top1 is None or reader.real_top1 is None:
        return reader.top1 is reader.real_top1
    noise = len(report.images) - report.real_images
    return 0 <= reader.real_top1 <= report.real_images and 0 <= reader.top1 - reader.real_top1 <= noise


def _repeated(report: Report) -> Iterator[str]:
    """Figures that a report which passed has in several places."""
    final = next((layer for layer in reversed(report.layers) if layer.name in ("logits", "features")), None)
    if final is None or not report.readers:
        yield "it passed without logits or features"
        return
    errors = {report.max_abs_error, final.max_abs_error, report.readers[0].max_abs_error}
    if len(errors) > 1 or None in errors:
        yield f"the largest error of {final.name} is {' and '.join(map(str, errors))}"
    if report.floor != final.floor:
        yield f"the floor of {final.name} is {report.floor} and {final.floor}"
    if (report.dtype == "float32") != (report.rounding == 0):
        yield f"values stored in {report.dtype} moved by {report.rounding}"
    held_out = report.held_out
    if held_out and not _possible(held_out):
        yield f"of {held_out.images} held-out images {held_out.same} get the same class"
    if held_out and not _shown_possible(held_out):
        yield (
            f"the first held-out image shows {held_out.label}, and is taken for {held_out.source_class} and "
            f"{held_out.target_class}, which its counts do not allow"
        )
    if held_out and held_out.exact and report.dtype != "float32":
        yield f"held-out images must get the same class from values stored in {report.dtype}"
    for layer in report.layers:
        if not 0 <= layer.image < len(report.images):
            yield f"{layer.name} is of image {layer.image + 1} of {len(report.images)}"
    classes = [logit.index for logit in report.logits]
    if classes != sorted({*classes}):
        yield "the plotted logits are not in order"
    for logit in report.logits:
        if not _plotted(logit, report.max_abs_error):
            yield f"logit {logit.index} is {logit.oracle} and {logit.model}, further apart than the largest error"


def _possible(held_out: HeldOutReport) -> bool:
    """Whether so many images can be right on both sides, with so many classes the same."""
    both = held_out.source_right, held_out.target_right
    others = held_out.images - held_out.same
    return others >= abs(both[0] - both[1]) and min(*both, others) >= 0 and max(*both, others) <= held_out.images


def _shown_possible(held_out: HeldOutReport) -> bool:
    """Whether the first image can be one of those that the counts are of."""
    pairs = (
        (held_out.source_class == held_out.target_class, held_out.same),
        (held_out.label == held_out.source_class, held_out.source_right),
        (held_out.label == held_out.target_class, held_out.target_right),
    )
    return all(count > 0 if equal else count < held_out.images for equal, count in pairs)


def _plotted(logit: LogitReport, error: float | None) -> bool:
    """Whether the two values of a logit, four digits each, may be ``error`` apart."""
    if logit.oracle is None or logit.model is None or error is None:
        return False
    return abs(logit.oracle - logit.model) <= error * (1 + ROUNDED) + ROUNDED * max(abs(logit.oracle), abs(logit.model))


def _own_constants(report: Report) -> Iterator[str]:
    for reader in report.readers:
        if reader != explained(reader, report):
            yield f"{reader.name} is said to be {reader.reason!r}, its figures say {explained(reader, report).reason!r}"
        own = (reader.epsilon, reader.pool_padding) == (STANDARDIZATION_EPSILON, report.pool_padding)
        if own and reader.moved not in (0, None):
            yield f"{reader.name}: the source's own epsilon and padding move nothing, not {reader.moved}"


def _oracles(report: Report) -> Iterator[str]:
    first = next((name for name in NAMES if report.oracle.startswith(name)), NAMES[0])
    agreeing = [first, *(other.name for other in report.other_oracles if other.verdict == "agrees")]
    if report.oracle != " and ".join(agreeing):
        yield f"the oracle is said to be {report.oracle}; {' and '.join(agreeing)} agree"
    for other in report.other_oracles:
        if other.verdict == "agrees" and other.compared < 1:
            yield f"{other.name} agrees in nothing"


def _evaluated(report: Report) -> Iterator[str]:
    """Figures of an evaluation that cannot be of one set of images."""
    found = report.evaluation
    if found is None:
        return
    sides = [side for side in (found.source, found.target) if side is not None]
    if found.images < 1 or any(not 0 <= side.top1 <= side.top5 <= found.images for side in sides):
        yield f"the evaluation counts {' and '.join(f'{s.top1} and {s.top5}' for s in sides)} of {found.images} images"
    if not 0 <= found.other_pixels <= found.images or not 0 < found.classes <= found.images:
        yield f"the evaluation is of {found.classes} classes and {found.other_pixels} other pixels"
    if not min(1, found.unreadable) <= len(found.unreadable_files) <= found.unreadable:
        yield f"the evaluation names {len(found.unreadable_files)} of {found.unreadable} unreadable files"
    if (found.target is None) != (found.same is None) or (found.target is None) != bool(found.reason):
        yield "the evaluation has figures of a target that was not run"
    elif found.target is not None and found.same is not None:
        yield from _compared(found, found.target, found.same)
    if found.exact and (report.dtype != "float32" or found.other_pixels):
        yield "the evaluation demands the same classes of other values or pixels"


def _compared(found: EvaluationReport, target: AccuracyReport, same: int) -> Iterator[str]:
    """Figures of two networks that contradict each other."""
    others = found.images - same
    if not abs(found.source.top1 - target.top1) <= others <= found.images or found.ties > others or found.ties < 0:
        yield f"of {found.images} evaluated images {same} get the same class, of the others {found.ties} are ties"
    if not min(1, others) <= len(found.changed) <= others:
        yield f"the evaluation names {len(found.changed)} of {others} changed images"
    for image in found.changed:
        margins = [margin for margin in (image.source_margin, image.target_margin) if margin is not None]
        if image.source_class == image.target_class or min(margins, default=0) < 0:
            yield f"{image.file} is no changed image"
    right = [image.label in (image.source_class, image.target_class) for image in found.changed]
    if abs(found.source.top1 - target.top1) > others - len(right) + sum(right):
        yield "the evaluation's changed images do not make its accuracies"


def _source(report: Report) -> Iterator[str]:
    yield from (f"the source has no {key}" for key in ("file", "format") if not report.source.get(key))


def _digests(report: Report) -> Iterator[str]:
    digests = [
        report.source.get("sha256", ""),
        *report.files.values(),
        *(weight.sha256 for weight in report.weights),
        *(image.sha256 for image in report.images),
        *([report.evaluation.sha256] if report.evaluation else []),
    ]
    for digest in digests:
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            yield f"{digest!r} is no sha256"


def _near(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and math.isclose(a, b, rel_tol=ROUNDED, abs_tol=1e-12)
