"""The steps of an audit, counted: what is being done, how many steps are done, how many there are.

number of steps known at first → ``Steps`` → calls of a ``Progress``, the last one at the total
"""

from __future__ import annotations

from threading import Lock

from verify.protocols import Progress


class Steps:
    """Called with what begins now, by any thread. What is done never goes back; the total only grows, where work turns
    up."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._begun = progress, total, 0
        self._lock = Lock()

    def __call__(self, what: str) -> None:
        with self._lock:
            self._say(what, self._begun)
            self._begun += 1

    def expect(self, more: int) -> None:
        """More steps have turned up."""
        self._total += more

    def skip(self, count: int) -> None:
        """Steps that were expected and need not be done, or are done beside what was said last."""
        with self._lock:
            self._begun += count

    def end(self, what: str) -> None:
        """Everything is done."""
        self._say(what, self._total)

    def _say(self, what: str, done: int) -> None:
        if self._progress is not None:
            self._progress(what, done, self._total)
