"""Kills work at every step it takes on the file system, one step a run, and lets it run again.

For a fresh process without threads: each run is a fork of it.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
from collections.abc import Callable

STEPS = ("replace", "rename", "link", "symlink", "unlink", "mkdir", "rmdir", "fsync", "open", "chmod")
"""Functions of ``os`` before each of which the process is killed once."""


def killed_at_every_step(work: Callable[[int], None], check: Callable[[int, bool], None]) -> int:
    """Runs ``work(step)`` in a process that is killed before its step-th step, then ``check(step, killed)``.

    Goes on until a run takes fewer steps than that, and returns the number of steps it took.
    """
    for step in itertools.count():
        killed = os.waitstatus_to_exitcode(os.waitpid(_forked(work, step), 0)[1])
        assert killed in (0, -signal.SIGKILL), f"step {step}: exit status {killed}"
        check(step, killed != 0)
        if not killed:
            return step
    raise AssertionError


def _forked(work: Callable[[int], None], step: int) -> int:
    if child := os.fork():
        return child
    try:
        left = itertools.count(step, -1)
        for name in STEPS:
            setattr(os, name, _deadly(getattr(os, name), left))
        io.open = _deadly(io.open, left, 2)  # type: ignore[assignment]  # what pathlib opens files with
        work(step)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _deadly(function: Callable[..., object], left: itertools.count[int], times: int = 1) -> Callable[..., object]:
    """The function with a step before it and, where ``times`` is 2, one after it: a file was just made or emptied."""

    def step() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def call(*args: object, **options: object) -> object:
        step()
        result = function(*args, **options)
        if times == 2:
            step()
        return result

    return call
