"""Audits of folders: a folder and its source are handed to ``verify``, with images.

folder, source → Folder → verify.audit → Report; ``bit-verify`` also writes it and says it
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.auditing.evaluation.images import SUFFIXES, is_image, opened
from converters.auditing.evaluation.run import Evaluation
from converters.auditing.heldout import held_out
from converters.auditing.target import Folder, audit_readers
from converters.catalogue.variants import SMALLEST, Variant, find_one
from converters.download.locations import checkpoint_of, identity, target_of, variant_of
from converters.errors import UsageError
from converters.files import PARITY, PARITY_PAGE, PREPROCESSOR, model_files, write_whole
from converters.folder.plan import UNKNOWN_PREPROCESSING, Plan
from converters.folder.signature import public_key
from converters.options import AuditOptions, Proof
from converters.placing import openable, writing_to
from converters.redaction import printable, printable_values
from converters.sources import GoogleView, open_checkpoint
from converters.sources.saved_model import SavedModel
from verify import Reader, Report
from verify.oracles.agreement import MAKERS, OracleRequest
from verify.protocols import Progress, Source

VERSION = version("bit-convert")


def audit_folder(
    folder: Path,
    source: GoogleView,
    choose_readers: Callable[[Folder], Sequence[Reader]],
    options: Proof,
    progress: Progress,
    *,
    variant: Variant | None = None,
    digests: Mapping[str, str] | None = None,
    as_loaded: bool = False,
) -> Report:
    """The report on a folder: the default images, and the photographs that the options name.

    ``variant`` is what the source is said to be: its labels and preprocessing are then compared as well. ``digests``
    and ``as_loaded`` are as Folder has them.
    """
    from verify.auditing import AuditSettings, audit
    from verify.images import IMAGES

    asked = options if isinstance(options, AuditOptions) else AuditOptions()  # what a conversion has no option for
    with (
        openable(folder) as path,
        Folder(
            path,
            source,
            choose_readers,
            variant=variant,
            pool_padding=options.pool_padding,
            digests=digests or {},
            as_loaded=as_loaded,
            verify_key=asked.verify_key,
        ) as target,
    ):
        # Made now, so that a data set that is none is refused before anything runs.
        evaluation = Evaluation(target, asked.dataset, asked.limit, asked.device) if asked.dataset else None
        can_prepare = options.images is not None and not target.inspection.wrong(PREPROCESSOR)
        noise = IMAGES[asked.inputs]()
        noise += _images_of_the_graph(target.plan, noise)
        report = audit(
            target,
            source,
            AuditSettings(
                images=noise,
                real_images=photographs(options.images, path) if options.images and can_prepare else (),
                pool_padding=target.plan.pool_padding,
                judged_by=target.judged_by,
                other_oracles=[
                    OracleRequest(name, MAKERS[name], required=name in options.oracles)
                    for name in oracles_of(source, options.oracles)
                ],
                device=asked.device,
                version=VERSION,
                held_out=lambda: held_out(target),
                evaluation=lambda: evaluation.run(progress) if evaluation else None,
                changes=lambda: target.changes() | _of_the_checkpoint(source.changes()),
            ),
            progress=lambda what, done, total: progress(f"verifying {what}", done, total),
        )
        return printable_values(report)


def _of_the_checkpoint(changes: Mapping[str, str]) -> dict[str, str]:
    return {f"the checkpoint's {name}": what for name, what in changes.items()}


def _images_of_the_graph(plan: Plan, pixels: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    """The default images in the one size that a SavedModel's graph takes, where none is of that size."""
    from verify.images import default_images

    found = plan.found
    if found is None or found.size == UNKNOWN_PREPROCESSING.size:
        return []
    size = found.size["height"], found.size["width"]
    return [] if any(image.shape[2:] == size for image in pixels) else default_images(*size)


def oracles_of(source: Source, asked: Sequence[str]) -> list[str]:
    """The oracles beside the first one: those that were asked for, and a SavedModel's own graph in any case."""
    own = ["graph"] if source.format == SavedModel.format else []
    return list(dict.fromkeys([*own, *asked]))


def photographs(directory: Path, folder: Path) -> list[npt.NDArray[np.float32]]:
    """The images of a directory as the folder's own processor makes them: (1, 3, height, width) float32 each.

    Raises UsageError where there is none, or one that cannot be read.
    """
    from bit_ref import BitImageProcessor

    paths = sorted(filter(is_image, directory.iterdir()))
    if not paths:
        raise UsageError(f"{directory}: no image ({', '.join(SUFFIXES)}). Give a folder that holds some.")
    if not (folder / PREPROCESSOR).is_file():
        raise UsageError(f"{folder}: has no {PREPROCESSOR} to prepare photographs with. Leave out --images.")
    processor: Any = BitImageProcessor.from_pretrained(folder)
    pixels = []
    for path in paths:
        try:
            values = processor.preprocess(opened(path), return_tensors="np")["pixel_values"]
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read as an image: {error}. Remove it or mend it.") from error
        if min(values.shape[2:]) < SMALLEST:
            size = " x ".join(map(str, values.shape[2:]))
            raise UsageError(f"{path}: {size} pixels are too few to judge, {SMALLEST} a side are needed. Leave it out.")
        pixels.append(np.asarray(values, np.float32))
    return pixels


def audit_target(target: Path | str, against: Path | str, options: AuditOptions, progress: Progress) -> Report:
    """Audits as ``bit-verify`` does: ``target`` in every library that is installed. Nothing is written.

    ``target`` is a folder or a repository of the Hub, ``against`` a checkpoint: a name of the catalogue, a path or an
    address. Raises UsageError where the target is its own source.
    """
    variant_of(against)  # what is missing is said before a download
    if options.verify_key is not None:
        public_key(options.verify_key)  # refuses a wrong one before the work
    folder = target_of(target, options.offline, progress)
    checkpoint, variant = checkpoint_of(against, options.offline, progress)
    if options.variant is not None:
        variant = find_one(options.variant)
    with open_checkpoint(checkpoint) as source:
        refuse_own_source(folder, source)
        report = audit_folder(
            folder,
            source,
            lambda folder: audit_readers(folder, options.runners, options.computing),
            options,
            progress,
            variant=variant,
            as_loaded=True,
        )
    return replace(report, target=printable_values(identity(target, folder)))


def refuse_own_source(folder: Path, source: GoogleView) -> None:
    """Raises UsageError where the source is made of the weights that the folder holds, by whatever path or link."""
    own = [folder / name for name in _weights_of(folder)]
    same = next((path for path in source.files.values() if any(map(path.samefile, own))), None)
    if same is not None:
        raise UsageError(
            f"{folder}: is its own source: {same} holds its own weights, and would agree with itself.\n"
            "Give the checkpoint that it was made from, by path, URL or a name of bit-convert --list."
        )


def _weights_of(folder: Path) -> list[str]:
    """The files that a library takes the weights from, where a folder holds several kinds."""
    files = model_files(folder)
    kinds = ([name for name in files if name.endswith(suffix)] for suffix in (".safetensors", ".bin", ".npz"))
    return next(filter(None, kinds), [])


def write_report(report: Report, folder: Path, command: str) -> None:
    """parity.json and parity.html, each whole or not at all."""
    from verify.report.html import render

    write_texts({PARITY: report.to_json(), PARITY_PAGE: render(report, environment(), printable(command))}, folder)


def write_texts(texts: Mapping[str, str], folder: Path) -> None:
    """Files of a folder of reports, each whole or not at all."""
    with writing_to(folder, "Make room, or choose another folder with --report."):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(folder / name, text)


def environment() -> dict[str, str]:
    """The versions of what ran, for the page, which stays on this machine."""
    found = {"Python": platform.python_version(), "on": f"{platform.system()} {platform.machine()}"}
    for name in ("bit-convert", "numpy", "torch", "transformers", "timm", "tensorflow", "safetensors"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
