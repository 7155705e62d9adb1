"""Estimates a release, from the catalogue and from this machine; nothing is asked of a network.

Job … → ``estimate()`` → Estimate: models, bytes, disk, memory, requests, hours → ``lines()``
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from converters.amounts import duration, size
from converters.errors import UsageError
from converters.files import cache_folder
from converters.mapping.architecture import Architecture
from converters.options import PublishOptions
from converters.release.job import Job
from verify.oracles.numpy.threads import cores

BASE_MEMORY = 800 * 10**6
"""Bytes of a process that verifies: PyTorch, a report, the oracle's tensors of one unit, images of 64 pixels."""
STREAM_MEMORY = 250 * 10**6
"""Bytes of a process that only converts: a conversion is a stream, of 233 MB at its most (docs/conversion-speed.md)."""
VERIFIED_SECONDS = (4.0, 20.0)
CONVERTED_SECONDS = (1.0, 2.5)
"""Seconds of one core for any model, and for each GB of its weights in float32. Measured with one thread on an AMD
EPYC: R50x1 4.3, with 21,843 classes 6.4, R152x4 69; unverified, R152x4 with 21,843 classes 10. Products and passes over
the weights both grow with the weights, so that one rate serves."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

CGROUP = Path("/sys/fs/cgroup")

MOST_FILES = 10_000
"""Files of a folder that are counted: a checkpoint has some, and a home that is given by mistake has a million."""
REQUESTS = 9
"""Requests to the Hub for a model that is not there yet; 1 for one that is."""
TAG_REQUESTS, PULL_REQUEST_REQUESTS, BRANCH_REQUESTS = 3, 1, 2
"""More of them: for a tag, for pull requests that are open, for a branch that is made."""
WINDOW_REQUESTS, WINDOW = 1000, 300.0
"""Requests of a free account in so many seconds (huggingface.co/docs/hub/rate-limits). The limits of repositories and
commits an hour are not published."""


def weights_of(architecture: Architecture) -> int:
    """Bytes of a network's parameters in float32."""
    head = (architecture.features + 1) * (architecture.classes or 0)
    return 4 * head + _trunk_bytes(replace(architecture, classes=None))


@cache
def _trunk_bytes(headless: Architecture) -> int:
    from converters.mapping.names import parameters

    return sum(4 * math.prod(parameter.shape) for parameter in parameters(headless))


def memory_of(weights: int, verify: bool) -> int:
    """Bytes of memory that a model of so many bytes in float32 takes at most, photographs of ``--images`` left aside.

    Verified, a network's weights are there as they are stored and, for held-out images and data sets, as kernels that
    are standardised once. Measured so, as the peak of the whole process, in MB: R50x1 with 1,000 classes 789 (in
    bfloat16 834), with 21,843 classes 1,119 (1,241), R101x1 951, R50x3 2,471 (2,514), R152x2 with 21,843 2,957; R152x4
    8,050, and in an audit that drops each kernel when it has been used 5,950 (docs/speed.md).
    """
    return BASE_MEMORY + 2 * weights if verify else STREAM_MEMORY


def memory_expected(job: Job) -> int:
    """Bytes that an attempt at a job takes at most; of a checkpoint that is no variant, as its size lets expect."""
    return memory_of(_weights(job) or 0, job.request.options.verify)


def memory_available() -> float:
    """Bytes that this process and its children may still take; infinite where the system does not say."""
    return min(_memory_free(), _left_in_group())


def _memory_free() -> float:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float("inf")


def _left_in_group() -> float:
    """Bytes that are left of a container's limit (cgroup v2)."""
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        return limit - int((CGROUP / "memory.current").read_text(encoding="ascii"))
    return float("inf")


def seconds_of(weights: int, verify: bool) -> float:
    """Seconds of one core that a model of so many bytes in float32 takes."""
    base, rate = VERIFIED_SECONDS if verify else CONVERTED_SECONDS
    return base + rate * weights / 1e9


def requests_of(publish: PublishOptions) -> int:
    """Requests to the Hub that one new model takes; none for a folder hub."""
    if publish.hub is not None:
        return 0
    return (
        REQUESTS
        + TAG_REQUESTS * (publish.tag is not None)
        + PULL_REQUEST_REQUESTS * publish.create_pr
        + BRANCH_REQUESTS * (publish.revision not in (None, "main"))
    )


@dataclass(frozen=True)
class Estimate:
    """The cost of a release, as far as it can be known without a download; sizes in bytes."""

    models: int
    unknown: int
    """Models among them of which nothing is known before they are downloaded; they count for nothing."""
    fetch: int
    cached: int
    """Bytes of checkpoints that are on this machine already; ``fetch`` is the rest."""
    send: int
    disk: Mapping[Path, int]
    """To be written, by the folder that is there already and on whose disk it goes."""
    largest: int
    """The disk of the largest model alone: what ``--discard`` needs for each that is worked on."""
    memory: int
    """The largest model's."""
    requests: int
    seconds: float
    """Seconds of one core."""

    @property
    def hub_seconds(self) -> float:
        """The shortest time in which a free account may ask so much of the Hub."""
        return self.requests / WINDOW_REQUESTS * WINDOW

    def to_json(self) -> dict[str, Any]:
        names = ("models", "unknown", "fetch", "cached", "send", "memory", "requests")
        sizes = {name: getattr(self, name) for name in names}
        disk = {"disk": sum(self.disk.values()), "disk_with_discard": self.largest}
        hours = {"hub_hours": round(self.hub_seconds / 3600, 3), "core_hours": round(self.seconds / 3600, 3)}
        return {**sizes, **disk, **hours, "cores": cores()}

    def lines(self) -> dict[str, str]:
        """For people: what, and how much of it."""
        unknown = f"; of {self.unknown} nothing is known before a download" if self.unknown else ""
        cached = f"; {size(self.cached)} are here already" if self.cached else ""
        rows = {
            "models": f"{self.models:,}{unknown}",
            "fetch": f"{size(self.fetch)}{cached}",
            "send": size(self.send) if self.requests else "",
            "disk": f"{size(sum(self.disk.values()))}; with --discard {size(self.largest)} a worker",
            "memory": f"{size(self.memory)} for the largest model" if self.memory else "",
            "Hub requests": f"{self.requests:,}, in {duration(self.hub_seconds)} at 1,000 in 5 minutes"
            if self.requests
            else "",
            "processor": f"{duration(self.seconds)} of one core, {duration(self.seconds / cores())} of {cores()}",
        }
        return {name: text for name, text in rows.items() if text}

    def shortages(self, discarding: int = 0) -> Iterator[str]:
        """Yields a warning for each disk with less room than is needed; ``discarding`` workers hold a model each."""
        for place, count in self.disk.items():
            needed = min(count, discarding * self.largest) if discarding else count
            free = shutil.disk_usage(place).free
            if needed > free:
                remedy = "Make room" if discarding else "Make room, or use --discard"
                yield f"{place}: too little disk: {size(needed)} are needed, {size(free)} are free. {remedy}."


@dataclass(frozen=True)
class _Part:
    """The cost of one job."""

    source: str
    """Its checkpoint's address; jobs of one share it."""
    fetch: int
    cached: int
    weights: int | None
    write: int
    place: Path
    hub: Path | None


def estimate(jobs: Sequence[Job]) -> Estimate:
    """Raises UsageError where there is no home for the cache of downloads."""
    parts = [_part(job) for job in jobs]
    sources = {part.source: part for part in parts}.values()
    pairs = list(zip(jobs, parts, strict=True))
    known = [(part.weights, job.request.options.verify) for job, part in pairs if part.weights is not None]
    published = [(job.publish, part) for job, part in pairs if job.publish]
    writes = [(cache_folder(), part.fetch) for part in sources if part.fetch]
    writes += [(path, part.write) for part in parts for path in (part.place, part.hub) if path is not None]
    return Estimate(
        models=len(jobs),
        unknown=len(jobs) - len(known),
        fetch=sum(part.fetch for part in sources),
        cached=sum(part.cached for part in sources),
        send=sum(part.write for publish, part in published if publish.hub is None),
        disk=_by_disk(writes),
        largest=max((part.fetch + part.write * (2 if part.hub else 1) for part in parts), default=0),
        memory=max((memory_of(weights, verify) for weights, verify in known), default=0),
        requests=sum(requests_of(publish) for publish, _ in published),
        seconds=sum(seconds_of(weights, verify) for weights, verify in known),
    )


def _part(job: Job) -> _Part:
    source, fetch, cached = _source(job)
    weights = _weights(job, cached)
    whole = ITEM_BYTES[job.request.options.dtype] * (weights or 0) // 4
    place = job.request.place()
    hub = job.publish.hub if job.publish else None
    return _Part(source, fetch, cached, weights, max(0, whole - bytes_of(place)), place, hub)


def _weights(job: Job, here: int | None = None) -> int | None:
    """The bytes of a model in float32; None of a checkpoint that is no variant and not here.

    ``here`` are the checkpoint's bytes on this machine, where they were counted before.
    """
    if job.request.variant is not None:
        return weights_of(job.request.variant.network)
    return (_source(job)[2] if here is None else here) or None


def _source(job: Job) -> tuple[str, int, int]:
    """The address of a checkpoint, its bytes to fetch, and its bytes that are here."""
    variant, place = job.request.variant, job.source
    if place is None:
        return job.name, 0, 0
    if isinstance(place, Path):
        return str(place), 0, bytes_of(place)
    whole = (variant.bytes or weights_of(variant.network)) if variant else 0
    held = _held(place)
    return place, 0 if held else whole, held


def _held(address: str) -> int:
    """Bytes of a download that is in the cache, whole."""
    from converters.download.locations import downloads

    with suppress(UsageError):
        found = [slot.whole() for slot in downloads(address)]
        if all(found):
            return sum(entry.size for _, entry in filter(None, found))
    return 0


def bytes_of(place: Path) -> int:
    """Bytes of a file, or of the files of a folder; 0 of what is not there or cannot be looked at."""
    with suppress(OSError):
        if place.is_file():
            return place.stat().st_size
        return sum(path.stat().st_size for path in islice(place.rglob("*"), MOST_FILES) if path.is_file())
    return 0


def _by_disk(writes: Iterable[tuple[Path, int]]) -> dict[Path, int]:
    """Sums what is written by the disk that it goes to, which is named by the first folder that is there."""
    names: dict[int, Path] = {}
    sums: dict[Path, int] = {}
    for place, count in writes:
        with suppress(OSError):  # a place that cannot be is refused when it is to be written to
            there = next(path for path in (place, *place.absolute().parents) if path.exists())
            name = names.setdefault(there.stat().st_dev, there)
            sums[name] = sums.get(name, 0) + count
    return {place: count for place, count in sums.items() if count}
