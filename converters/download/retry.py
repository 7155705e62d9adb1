"""The time for which a server is asked again: one rule for downloads and for the Hub.

    attempt → ``Trouble`` → ``Patience.pause`` (wait, or give up) → attempt;  ``Refused`` → no other attempt

Pauses grow until nothing has gone forward for ``Pace.silence`` seconds. A wait that the server asks for is no silence:
it is waited for, and nothing is asked meanwhile by anybody with the same token (``gates``). tenacity and stamina count
from the first attempt; here every byte that arrives starts the count again.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime

from converters.download import gates
from converters.errors import HubError, Scope

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
"""Statuses after which the same request may succeed; the last ones are Cloudflare's."""
UNANSWERED = 10.0
"""Seconds that a host gets that never answered in this run: no network or a wrong name, rather than a fault."""
CONNECT = 15.0
FIRST_CONNECT = 1.5
"""Seconds for the first connection to a host that never answered, so that a failure is soon noticed."""
MAX_DOUBLINGS = 16

_answered: set[str] = set()
"""Hosts that have answered in this run."""
_longest_wait: ContextVar[float] = ContextVar("longest_wait", default=float("inf"))
_patience: ContextVar[float | None] = ContextVar("patience", default=None)


class Postponed(HubError):
    """A server asks to wait for longer than whoever asks is willing to wait in place; nothing is lost by that."""

    def __init__(self, problem: str, seconds: float) -> None:
        super().__init__(problem, Scope.PASSING)
        self.seconds = seconds


@contextmanager
def postponing(longest: float) -> Iterator[None]:
    """Inside, in this thread, a wait that a server asks for and that is longer than this many seconds raises
    Postponed."""
    token = _longest_wait.set(longest)
    try:
        yield
    finally:
        _longest_wait.reset(token)


def wait_in_place() -> None:
    """From now on, until ``postponing`` is left, nothing raises Postponed in this thread: what is begun is finished."""
    _longest_wait.set(float("inf"))


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Inside, in this thread, a server that asks to wait is waited for so long, instead of what a pace says."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class _Failed(Exception):
    def __init__(self, problem: str, status: int | None = None, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.problem, self.status, self.wait = problem, status, wait


class Trouble(_Failed):
    """No answer, or one that may be another next time; ``wait``: the seconds that the server asks to wait."""


class Refused(_Failed):
    """The server understood and said no; asking again is no use."""


@dataclass(frozen=True)
class Pace:
    """The spacing of requests; times in seconds."""

    first: float = 0.5
    """Between a first failure and the second attempt; doubled from attempt to attempt."""
    longest: float = 8.0
    silence: float = 120.0
    """Without progress, after which it is given up."""
    patience: float = 3600.0
    """For which a server that asks to wait is waited for, without progress, in all."""
    timeout: float = 60.0
    """For which a server may neither take nor send a byte."""
    deadline: float = 24 * 3600.0
    """For the whole of a download."""
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random


class Patience:
    """Counts how long nothing has gone forward with one host, asked with one token, and waits between attempts."""

    def __init__(self, pace: Pace, host: str, token: str = "") -> None:
        asked = _patience.get()
        self.pace = pace if asked is None else replace(pace, patience=asked)
        self._host = host
        self._gate = (host, token)
        self._begun: float | None = None
        self.progress()

    def progress(self) -> None:
        """Something that was not done before is done now."""
        self._since: float | None = None
        self._failures = 0
        self._announced = 0.0

    def answered(self) -> None:
        """The host has answered, whatever it said."""
        _answered.add(self._host)

    def admit(self) -> None:
        """Before each request: waits for as long as the server asked any thread to. Raises Trouble for too long."""
        while (left := gates.seconds_left(self._gate, self.pace.now())) > 0:
            if left > min(self.pace.patience, _longest_wait.get()):
                raise Trouble("it asked to be left alone", wait=left)
            self.pace.sleep(left)
            if self._since is not None:
                self._since += left

    def timeouts(self) -> dict[str, float]:
        """The seconds that a request may be held up in each of httpx's ways."""
        longest, connect = self.pace.timeout, CONNECT
        if self._host not in _answered:
            now = self.pace.now()
            self._begun = now if self._begun is None else self._begun
            longest = min(longest, max(self._begun + UNANSWERED - now, 0.1))
            connect = FIRST_CONNECT * 2**self._failures
        return dict.fromkeys(("read", "write", "pool"), longest) | {"connect": min(connect, longest)}

    @property
    def limit(self) -> float:
        """The seconds of silence after which it is given up."""
        return self.pace.silence if self._host in _answered else min(self.pace.silence, UNANSWERED)

    def pause(self, trouble: Trouble, say: Callable[[str], None]) -> bool:
        """Waits before the next attempt, and says so; False, at once, where that would be too long.

        Exponential with jitter over its upper half, and never shorter than the server asked for.
        """
        longest = self.pace.longest if self._host in _answered else UNANSWERED / 5
        wait = min(longest, self.pace.first * 2.0 ** min(self._failures, MAX_DOUBLINGS))
        wait *= (1 + self.pace.random()) / 2
        now = self.pace.now()
        self._since = now if self._since is None else self._since
        self._failures += 1
        if trouble.wait > wait:
            wait = trouble.wait
            self._announced += wait
            self._since += wait
            if self._announced > self.pace.patience:
                return False
            gates.close(self._gate, now, wait)
            if wait > _longest_wait.get():
                raise Postponed(trouble.problem, wait)
        elif now + wait > self._end():
            return False
        say(f"{trouble.problem}; trying again in {wait:.0f} s")
        self.pace.sleep(wait)
        return True

    def _end(self) -> float:
        assert self._since is not None, "there was trouble"
        begun = self._since if self._host in _answered or self._begun is None else self._begun
        return begun + self.limit


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait: Retry-After, in seconds or as a date, or what is left of its rate limit
    (draft-ietf-httpapi-ratelimit-headers); 0 where it asks nothing that can be read."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", asked):
        return float(asked[:9])
    if (date := http_date(asked)) is not None:
        return max(0.0, date - time.time())
    limit = re.search(r"\br=0\b.*?\bt=([0-9]{1,9})\b", headers.get("RateLimit", ""))
    return float(limit[1]) if limit else 0.0


def http_date(text: str) -> float | None:
    """The seconds since 1970 of a date in a header; None for what is no date, or beyond the calendar."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
