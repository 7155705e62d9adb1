"""A published model need not stay on this disk: a record of it is enough to know that nothing is to be done.

publication → record in the cache; download, folder → removed;  record, the hub → is it still there?
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from converters.auditing.audits import VERSION
from converters.conversion import Conversion
from converters.digests import result_name
from converters.download.locations import downloads, remove_downloads
from converters.files import cache_folder, read_record, write_whole
from converters.hub.guard import Publication, is_there
from converters.release.job import Job, JobResult


@dataclass(frozen=True)
class _Published:
    """The part of a record that is read."""

    publication: Publication
    release: str = ""
    """The version that made it."""


def discard(job: Job, conversion: Conversion, publication: Publication) -> None:
    """Removes the model's folder and the download it was made from, after a record of both is on disk."""
    place = _record(job)
    place.parent.mkdir(parents=True, exist_ok=True)
    content = {"release": VERSION, "publication": asdict(publication), **_origin(job, conversion)}
    write_whole(place, json.dumps(content))
    if conversion.folder.is_dir() and not conversion.folder.is_symlink():
        shutil.rmtree(conversion.folder, ignore_errors=True)
    if not job.shares_download:
        _remove_download(job)


class Shared:
    """Downloads that several jobs of a run are made from: each goes when the last of them is published."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        sources = [job.source if job.discard else None for job in jobs]
        counts = Counter(sources)
        self.jobs = [
            replace(job, shares_download=True) if source is not None and counts[source] > 1 else job
            for job, source in zip(jobs, sources, strict=True)
        ]
        """The jobs, each of which knows whether it may remove its download itself."""
        self._left = {source: count for source, count in counts.items() if count > 1}

    def add(self, result: JobResult) -> None:
        """A job has come to its end; the download of one that failed stays for the next run."""
        job = self.jobs[result.number]
        if job.shares_download and result.error is None:
            self._left[job.source] -= 1
            if not self._left[job.source]:
                _remove_download(job)


def _remove_download(job: Job) -> None:
    """Removes what bit-convert fetched itself; a file of the user's stays."""
    if isinstance(job.source, str):
        remove_downloads(job.source)


def published_before(job: Job) -> Publication | None:
    """The publication of this very job, which the hub still has; None where it is to be done."""
    if job.recheck or job.publish is None:
        return None
    found = read_record(_record(job), _Published)
    if found is None or (job.publish.refresh and found.release != VERSION):
        return None
    return replace(found.publication, changed=False) if is_there(found.publication, job.publish) else None


def _origin(job: Job, conversion: Conversion) -> dict[str, object]:
    """The address of the checkpoint, what its server said of it, and its sha256."""
    report, place = conversion.report, job.source
    origin: dict[str, object] = {"source": str(place)}
    slots = downloads(place) if isinstance(place, str) else []
    entries = [found[1] for slot in slots if (found := slot.whole()) is not None]
    if entries:
        origin |= {"size": sum(entry.size for entry in entries), "etag": [entry.etag for entry in entries]}
    return origin | {"sha256": report.source.get("sha256") if report else None}


def _record(job: Job) -> Path:
    """The record's file, by everything that makes the job what it is, but for where it is made on this disk."""
    request, options = job.request, job.request.options
    variant = request.variant.name if request.variant else None
    how = (options.layout, options.dtype, options.exact, options.pool_padding, options.max_shard_size)
    to = job.publish
    where = (to.repo_id, to.namespace, to.revision, to.tag, to.create_pr, str(to.hub)) if to else None
    key = result_name(
        variant, str(request.checkpoint), how, "identity" if options.sign else str(options.sign_key), where
    )
    return cache_folder() / "published" / f"{key[:16]}.json"
