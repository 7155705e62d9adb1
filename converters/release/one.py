"""One job, from its checkpoint to the hub; called by a plain run, by a process of a pool and by a cluster alike."""

from __future__ import annotations

import time
from collections.abc import Callable

from converters.conversion import Conversion, convert, publish
from converters.failures import failure_of
from converters.release.job import Job, Result, State
from verify.protocols import Progress


def release_one(job: Job, progress: Progress, *, bars: bool = False, tell: Callable[[], None] | None = None) -> Result:
    """Converts, verifies and publishes one checkpoint. Called again after it was stopped anywhere, it goes on.

    Whatever goes wrong is the result's error: nothing is raised but what ends the process (Ctrl-C, SIGTERM).
    ``bars`` shows huggingface_hub's own progress on stderr; ``tell`` is called where an exception is being handled.
    """
    start = time.monotonic()
    name, conversion = job.name, None
    try:
        conversion = convert(job.request, progress)
        name = conversion.plan.name
        publication = None if job.publish is None else publish(conversion, job.publish, progress, bars=bars)
    except Exception as error:
        if tell is not None:
            tell()
        return Result(name, State.FAILED, conversion, error=failure_of(error), seconds=time.monotonic() - start)
    seconds = time.monotonic() - start
    changed = publication.changed if publication else conversion.made
    return Result(name, _state(conversion, job, changed), conversion, publication, seconds=seconds)


def _state(conversion: Conversion, job: Job, changed: bool) -> State:
    if job.publish is not None and changed:
        return State.PUBLISHED
    return State.CONVERTED if conversion.made else State.UNCHANGED
