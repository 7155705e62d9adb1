"""The meaning of a report for whoever uses the model: one sentence, derived from the figures that it records.

Report → ``meaning()``: identical within rounding; beyond rounding without another prediction; other predictions; or
wrong files alone

Predictions are what real images are taken for: photographs that a user gave and held-out images. Noise has no class, so
what it is taken for is no evidence.
"""

from __future__ import annotations

from verify.report.parity import Report


def meaning(report: Report) -> str:
    """Returns the sentence; it ends with a full stop."""
    changed, images = changed_predictions(report)
    if report.passed:
        checkpoint = "the checkpoint" + ("" if report.dtype == "float32" else f", rounded to {report.dtype},")
        return f"Identical within rounding: the folder computes what {checkpoint} computes{_on(changed, images)}."
    if changed:
        return f"Predictions change: {changed} of {images} real images get another class than from the checkpoint."
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
    return sum(changed for changed, _ in pairs), sum(images for _, images in pairs)


def _is_beyond_rounding(report: Report) -> bool:
    return bool(report.misfits) or any(reader.verdict != "passed" for reader in report.counting)


def _on(changed: int, images: int) -> str:
    if not images:
        return ""
    return f"; {changed or 'none'} of {images} real images {'gets' if changed == 1 else 'get'} another class"
