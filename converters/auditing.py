"""Audits of folders: a folder and its source are handed to ``verify``, with images.

folder, source → Folder → verify.audit → Report; ``bit-verify`` also writes it and says it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.catalogue import Variant
from converters.errors import UsageError
from converters.expectations import expectations
from converters.files import PARITY, PREPROCESSOR
from converters.folder import Folder, RoundedSource, audit_readers
from converters.names import GOOGLE, infer
from converters.plan import Plan
from converters.sources import open_checkpoint
from verify import Reader, Report, audit, default_images
from verify.protocols import PoolPadding, Progress, Source

RELEASE = version("bit-convert")
PHOTOGRAPHS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")


def audit_folder(
    folder: Path,
    source: Source,
    choose_readers: Callable[[Folder], Sequence[Reader]],
    pool_padding: PoolPadding,
    images: Path | None,
    progress: Progress,
    variant: Variant | None = None,
) -> Report:
    """The report on a folder: two default images, and the photographs of the directory ``images``.

    ``variant`` is what the source is said to be: its labels and preprocessing are then compared as well.
    """
    pixels = default_images() + (photographs(images, folder) if images else [])
    with Folder(folder, source, choose_readers) as target:
        target.expectations = expectations(folder, _plan_of(target, source, variant, pool_padding))
        rounded = source if target.dtype == "float32" else RoundedSource(source, target.dtype, target.exact)
        return audit(
            target,
            source,
            judged_by=rounded,
            images=pixels,
            pool_padding=pool_padding,
            progress=lambda what, done, total: progress(f"verifying {what}", done, total),
            release=RELEASE,
        )


def _plan_of(target: Folder, source: Source, variant: Variant | None, pool_padding: PoolPadding) -> Plan:
    """What a conversion of the source into this folder's layout and dtype would be."""
    return Plan(
        name=target.folder.name,
        architecture=infer(source.shapes, GOOGLE, source.path),
        variant=variant,
        exact=target.exact,
        pool_padding=pool_padding,
        layout=target.layout,
        dtype=target.dtype,
    )


def photographs(directory: Path, folder: Path) -> list[npt.NDArray[np.float32]]:
    """The images of a directory as the folder's own processor makes them: (1, 3, height, width) float32 each.

    Raises UsageError where there is none, or one that cannot be read.
    """
    from PIL import Image

    from bit_ref import BitImageProcessor

    paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in PHOTOGRAPHS)
    if not paths:
        raise UsageError(f"{directory}: no image ({', '.join(PHOTOGRAPHS)}). Give a folder that holds some.")
    if not (folder / PREPROCESSOR).is_file():
        raise UsageError(f"{folder}: has no {PREPROCESSOR} to prepare photographs with. Leave out --images.")
    processor: Any = BitImageProcessor.from_pretrained(folder)
    pixels = []
    for path in paths:
        try:
            with Image.open(path) as image:
                values = processor.preprocess(image, return_tensors="np")["pixel_values"]
        except (OSError, Image.DecompressionBombError) as error:
            raise UsageError(f"{path}: cannot be read as an image: {error}. Remove it or mend it.") from error
        pixels.append(np.asarray(values, np.float32))
    return pixels


def verify_target(
    target: Path,
    checkpoint: Path,
    report_folder: Path,
    pool_padding: PoolPadding | None,
    images: Path | None,
    progress: Progress,
    variant: Variant | None = None,
) -> Report:
    """What ``bit-verify`` does: audits ``target`` in every library that is installed, and leaves parity.json."""
    with open_checkpoint(checkpoint) as source:
        padding = pool_padding or source.pool_padding
        report = audit_folder(target, source, audit_readers, padding, images, progress, variant)
    report_folder.mkdir(parents=True, exist_ok=True)
    unfinished = report_folder / (PARITY + ".partial")
    unfinished.write_text(report.to_json(), encoding="utf-8")
    unfinished.replace(report_folder / PARITY)
    return report
