"""One job, from its checkpoint to the hub; called by a plain run, by a process of a pool and by a cluster alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from converters.conversion import Conversion, convert, publish
from converters.digests import read_again, result_name
from converters.download import gates
from converters.download.retry import Postponed, postponing
from converters.errors import UsageError
from converters.failures import failure_of
from converters.files import cache_folder
from converters.redaction import printable
from converters.release import discarding
from converters.release.again import audited_by
from converters.release.job import AuditJob, Job, JobResult, Later, State, Work
from verify.protocols import Progress

IN_PLACE = 5.0
"""Seconds that an attempt which could be made later waits in place for a server."""
BUSY = 1.0
"""Seconds after which a job that another run is at is looked at again."""


class Busy(Exception):
    """Another process is at the job."""


def release_one(
    job: Work, progress: Progress, *, waits: bool = True, bars: bool = False, tell: Callable[[], None] | None = None
) -> JobResult | Later:
    """Converts, verifies and publishes one checkpoint. Called again after it was stopped anywhere, it goes on.

    Whatever goes wrong is the result's error: nothing is raised but what ends the process (Ctrl-C, SIGTERM). Where
    another run is at the same job, or a server asks for patience, it waits, or without ``waits`` returns Later.
    ``bars`` shows huggingface_hub's own progress on stderr; ``tell`` is called where an exception is being handled.
    """
    start = time.monotonic()
    try:
        if isinstance(job, AuditJob):
            with nullcontext() if waits else postponing(IN_PLACE):
                result = _audited(job, progress)
        else:
            with (
                _locked(job, waits, progress),
                nullcontext() if waits else postponing(IN_PLACE),
                read_again() if job.recheck else nullcontext(),
            ):
                result = _released(job, progress, bars, tell)
    except Busy:
        return Later("another run is at it", BUSY, asked=False)
    except Postponed as wait:
        return Later(str(wait), wait.seconds, asked=True)
    except Exception as error:
        result = _failed(job.name, None, error, tell)
    return replace(result, seconds=time.monotonic() - start)


def share_gates() -> None:
    """From now on, whoever asks a host that wants to be left alone for a while waits, in every process of this user."""
    gates.share(cache_folder() / "gates")


def _audited(job: AuditJob, progress: Progress) -> JobResult:
    """A target's audit, as ``bit-verify`` makes it; whatever its verdict, it has come to a good end."""
    from converters.auditing.audits import audit_target, write_report
    from converters.auditing.named_source import named_by
    from converters.download.locations import target_of

    folder = target_of(job.target, job.options.offline, progress)
    against = job.against or named_by(folder)
    if against is None:
        raise UsageError(f"{job.name}: against which checkpoint? It names none: say it with --against.")
    report = audit_target(folder, against, job.options, progress)
    write_report(report, job.report, audited_by(job.target, against, job.options))
    return JobResult(job.name, State.AUDITED, audit=report, against=printable(against))


def _released(job: Job, progress: Progress, bars: bool, tell: Callable[[], None] | None) -> JobResult:
    if job.discard and (publication := discarding.published_before(job)) is not None:
        return JobResult(job.name, State.UNCHANGED, publication=publication, discarded=True)
    name, conversion = job.name, None
    try:
        conversion = convert(job.request, progress)
        name = conversion.plan.name
        publication = None if job.publish is None else publish(conversion, job.publish, progress, bars=bars)
    except Postponed:
        raise
    except Exception as error:
        return _failed(name, conversion, error, tell)
    state = State.CONVERTED if conversion.made else State.UNCHANGED
    if publication is not None and publication.changed:
        state = State.PUBLISHED
    size = conversion.bytes
    if publication is None or not job.discard:
        return JobResult(name, state, conversion, publication, bytes=size)
    discarding.discard(job, conversion, publication)
    return JobResult(name, state, conversion, publication, bytes=size, discarded=True)


def _failed(name: str, conversion: Conversion | None, error: Exception, tell: Callable[[], None] | None) -> JobResult:
    if tell is not None:
        tell()
    return JobResult(name, State.FAILED, conversion, error=failure_of(error))


@contextmanager
def _locked(job: Job, waits: bool, progress: Progress) -> Iterator[None]:
    """Inside, no other run of this user is at the job. A killed one's lock is gone with it.

    Raises Busy where it is held and not to be waited for.
    """
    from filelock import FileLock, Timeout

    key = result_name(str(job.place), str(job.request.checkpoint or ""))[:16]
    try:
        folder = cache_folder() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            if not waits:
                raise Busy from None
            progress("waiting for another run that is at it", 0, 1)
            held = lock.acquire()
    except (OSError, RuntimeError, UsageError):  # a cache that cannot be written, a file system without locks
        yield
        return
    with held:
        yield
