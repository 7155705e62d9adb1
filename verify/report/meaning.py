"""The meaning of a report for whoever uses the model: one sentence, derived from the figures that it records.

Report → ``meaning()``: identical within rounding; beyond rounding without another prediction; other predictions; or
wrong files alone

Predictions are what real images are taken for: photographs that a user gave, held-out images, and those of a labelled
data set. Noise has no class, so what it is taken for is no evidence.
"""

from __future__ import annotations

from collections.abc import Iterator

from verify.report.parity import AccuracyReport, ChangedImage, EvaluationReport, Report

NOTHING = "–"
"""The text in place of a figure that there is not."""


def figure_text(value: float | None, form: str = ".2e") -> str:
    """A figure as people read it."""
    return NOTHING if value is None else format(value, form)


def meaning(report: Report) -> str:
    """Returns the sentence; it ends with a full stop."""
    changed, images = changed_predictions(report)
    if report.passed:
        checkpoint = "the checkpoint" + ("" if report.dtype == "float32" else f", rounded to {report.dtype},")
        prepared = ", prepared as the folder says" if changed and _is_of_other_pixels(report) else ""
        same = f"the folder computes what {checkpoint} computes"
        return f"Identical within rounding: {same}{_on(changed, images)}{prepared}."
    if changed:
        why = " by preprocessing alone" if _is_of_other_pixels(report) else ""
        return f"Predictions change{why}: {changed} of {images} real images get another class than from the checkpoint."
    if report.verdict == "inconclusive":
        neither = "this audit shows neither that the models are the same nor that they differ"
        return f"Nothing can be concluded: {neither}{_on(changed, images)}."
    if any(reader.cannot_run for reader in report.counting):
        return "No predictions: the folder cannot be run."
    if _is_beyond_rounding(report):
        if images:
            return f"Beyond rounding, but no prediction changed on {images} real images."
        return "Beyond rounding; whether predictions change is not known, since no real image was tried."
    return "Only files are wrong: weights, and what is computed with them, are the checkpoint's."


def changed_predictions(report: Report) -> tuple[int, int]:
    """Returns the number of real images that the declared reader gives another class than the oracle, and of all."""
    pairs = []
    declared = report.readers[0] if report.readers else None
    if declared is not None and declared.real_top1 is not None:
        pairs.append((report.real_images - declared.real_top1, report.real_images))
    if report.held_out is not None:
        pairs.append((report.held_out.images - report.held_out.same, report.held_out.images))
    evaluation = report.evaluation
    if evaluation is not None and evaluation.same is not None:
        pairs.append((evaluation.images - evaluation.same, evaluation.images))
    return sum(changed for changed, _ in pairs), sum(images for _, images in pairs)


def _is_beyond_rounding(report: Report) -> bool:
    return bool(report.misfits) or any(reader.verdict != "passed" for reader in report.counting)


def _is_of_other_pixels(report: Report) -> bool:
    """Whether the two networks are the same within rounding, and were given other pixels of a data set's images."""
    return report.evaluation is not None and report.evaluation.other_pixels > 0 and not _is_beyond_rounding(report)


def _on(changed: int, images: int) -> str:
    if not images:
        return ""
    return f"; {changed or 'none'} of {images} real images {'gets' if changed == 1 else 'get'} another class"


def evaluation_lines(found: EvaluationReport) -> Iterator[tuple[str, str]]:
    """Yields what an evaluation found, a name and a text a line."""
    yield "data set", f"{found.dataset}: {found.images} images of {found.classes} classes{_left_out(found)}"
    yield "source, top-1 and top-5", f"{_accuracy(found.source, found)}; {found.oracle}"
    if found.target is None or found.same is None:
        yield "folder", f"not evaluated: {found.reason}"
        return
    yield "folder, top-1 and top-5", f"{_accuracy(found.target, found)}; {found.reader}"
    pixels = ", given the same pixels"
    if found.other_pixels:
        pixels = f"; preprocessing makes other pixels of {found.other_pixels} images"
    yield "the same class", f"{found.same} of {found.images} images{pixels}"
    if found.changed:
        ties = f", {found.ties} of them by rounding" if found.ties else ""
        yield (
            "another class",
            f"{found.images - found.same} images{ties}; the first {_changed(found, found.changed[0])}",
        )


def class_name(found: EvaluationReport, index: int | None) -> str:
    """Returns the name of a class of a changed image, or its number."""
    return "none, not finite" if index is None else found.names.get(str(index), f"class {index}")


def _left_out(found: EvaluationReport) -> str:
    if not found.unreadable:
        return ""
    return f"; {found.unreadable} left out, which cannot be read: {found.unreadable_files[0]}"


def _accuracy(side: AccuracyReport, found: EvaluationReport) -> str:
    shares = " and ".join(f"{right} ({right / found.images:.1%})" for right in (side.top1, side.top5))
    return f"{shares} right, {side.preprocessing}"


def _changed(found: EvaluationReport, image: ChangedImage) -> str:
    margins = [figure_text(margin, ".2g") for margin in (image.source_margin, image.target_margin)]
    source, target = (class_name(found, index) for index in (image.source_class, image.target_class))
    return f"{image.file}: {source} (margin {margins[0]}), the folder {target} (margin {margins[1]})"
