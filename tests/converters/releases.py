"""Jobs and results of releases that were never run, for what writes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.catalogue.variants import Variant, variants
from converters.conversion import Conversion, Request
from converters.errors import BitConvertError, HubError
from converters.folder.plan import Plan
from converters.hub.guard import Publication
from converters.mapping.storage import Storage
from converters.options import ConvertOptions, PublishOptions
from converters.release.job import Job, JobResult, State

REFUSED = "https://huggingface.co/me/x: the Hub refused the commit: 403 Forbidden.\nGive a token that may write."


def jobs(output: Path, count: int, publish: PublishOptions | None = None, **options: object) -> list[Job]:
    """A job for each of the first variants of the catalogue."""
    how = ConvertOptions(**options)  # type: ignore[arg-type]
    return [Job(Request(variant, None, output, how), publish) for variant in variants()[:count]]


def called(name: str, output: Path) -> Job:
    """The job of a variant that has another name."""
    variant: Variant = replace(variants()[1], name=name)
    return Job(Request(variant, None, output, ConvertOptions()))


def published(job: Job, changed: bool = True) -> JobResult:
    repository = f"me/{job.name.replace('/', '-')}"
    publication = Publication(repository, "main", "a" * 40, f"https://huggingface.co/{repository}", changed)
    state = State.PUBLISHED if changed else State.UNCHANGED
    conversion = _conversion(job)
    return JobResult(job.name, state, conversion, publication, seconds=31.25, bytes=conversion.bytes)


def failed(job: Job, error: BitConvertError | None = None) -> JobResult:
    return JobResult(job.name, State.FAILED, error=error or HubError(REFUSED), seconds=2.5)


def _conversion(job: Job) -> Conversion:
    """A folder of two files."""
    variant, options = job.request.variant, job.request.options
    assert variant is not None
    folder = job.request.place(variant.repository_name)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes(b"x" * 1000)
    plan = Plan(variant.repository_name, variant.network, variant, Storage.of(options))
    return Conversion(plan, folder, None, True, 1.0, "")
