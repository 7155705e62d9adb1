"""Requests to the Hub through huggingface_hub, with one rule for what a failure means and one for how long to go on.

    huggingface_hub → its HTTP client, guarded → answer | Doubt (look, wait, try again) | Refusal (give up at once)

huggingface_hub retries some requests and not others, has no time-out for most, sleeps as long as a Retry-After says,
and cannot know whether a request whose answer was lost has been done. So while something is published its HTTP client
raises ``Doubt`` and ``Refusal``, which huggingface_hub hands through; the caller looks at what the Hub holds before it
asks again. Xet's client is another, written in Rust, with retries of its own: of it only the errors are read.
"""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
"""Statuses after which the same request may succeed; the last ones are Cloudflare's."""
CONFLICT = frozenset({409, 412})
"""Somebody was faster: what is there has to be looked at again."""


_ONE_AT_A_TIME = threading.Lock()


class Doubt(Exception):
    """No answer, or one that does not say whether the Hub has done what it was asked."""

    def __init__(self, problem: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.retry_after = retry_after


class Refusal(Exception):
    """The Hub understood and said no; asking again is no use."""

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


@dataclass(frozen=True)
class Pace:
    """How requests are spaced; times in seconds."""

    first: float = 0.5
    """Between a first failure and the second attempt; doubled from attempt to attempt."""
    longest: float = 8.0
    timeout: float = 60.0
    """How long the Hub may neither take nor send a byte."""
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random


class Patience:
    """Counts how long nothing has gone forward, and waits between attempts."""

    def __init__(self, seconds: float, pace: Pace) -> None:
        self.seconds = seconds
        self._pace = pace
        self.progress()

    def progress(self) -> None:
        """Something that was not done before is done now."""
        self._since: float | None = None
        self._attempts = 0

    def next_wait(self, doubt: Doubt) -> float | None:
        """How long to wait before the next attempt, or None where patience would be over by then.

        Exponential with jitter over its upper half, and never shorter than the Hub asked for.
        """
        now = self._pace.now()
        self._since = now if self._since is None else self._since
        wait = min(self._pace.longest, self._pace.first * 2.0**self._attempts) * (1 + self._pace.random()) / 2
        wait = max(wait, doubt.retry_after or 0.0)
        self._attempts += 1
        return None if now + wait - self._since > self.seconds else wait

    def wait(self, seconds: float) -> None:
        self._pace.sleep(seconds)


@contextmanager
def guarded_client(timeout: float, sent: Callable[[str], None]) -> Iterator[None]:
    """While it is open, every request of huggingface_hub's shared HTTP client ends in time, and in an answer to go by.

    What says nothing certain raises Doubt, 401 and 403 raise Refusal, before huggingface_hub can retry or reword them.
    ``sent`` is told the path of each upload that was taken. The client is shared: a second publication waits, and what
    other threads ask of the Hub meanwhile fails in the same two ways.
    """
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    # HTTPError of the HTTP library in use: httpx, or httpx2 since 2.0.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]

    def guarded(request: Any, **options: Any) -> Any:
        asked = f"{request.method} {request.url.path}"
        limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        request.extensions = {**request.extensions, "timeout": limits}
        try:
            response = send(request, **options)
        except http_error as error:
            raise Doubt(f"{type(error).__name__} at {asked}: {_first_line(error)}") from None
        _judge(response, asked)
        if request.method == "PUT" and response.is_success:
            sent(request.url.path)
        return response

    with _ONE_AT_A_TIME:
        client = get_session()
        send = client.send
        client.send = guarded  # type: ignore[method-assign]
        try:
            yield
        finally:
            del client.send


def meaning(error: BaseException) -> Doubt | Refusal:
    """What an exception that huggingface_hub raised says about the request. Raises it again where it says nothing."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Doubt | Refusal):
            return cause
        cause = cause.__cause__
    match error:
        case HfHubHTTPError():
            status = error.response.status_code
            problem = f"{_status(status)}: {error.server_message or 'no reason given'}"
            return Doubt(problem, status) if status in CONFLICT | TRANSIENT else Refusal(problem, status)
        case OfflineModeIsEnabled():
            return Refusal("HF_HUB_OFFLINE is set, so nothing is asked of the network")
        case LocalTokenNotFoundError():
            return Refusal("no token was found", HTTPStatus.UNAUTHORIZED)
        case ConnectionError() | PermissionError() | RuntimeError():
            return _xet(error)
        case OSError():
            return Refusal(f"a local file cannot be read: {_first_line(error)}")
        case ValueError() if "Invalid metadata in README.md" in str(error):
            return Refusal(" ".join(str(error).split()))
        case json.JSONDecodeError() | KeyError() | TypeError() | ValueError():
            return Doubt(f"an answer that is not a Hub's ({type(error).__name__}: {_first_line(error)})")
        case _ if type(error).__module__.startswith("huggingface_hub"):
            return Refusal(_first_line(error))
        case _:
            raise error


def _judge(response: Any, asked: str) -> None:
    status = response.status_code
    if status in (401, 403):
        raise Refusal(f"{_status(status)} at {asked}: {_said(response)}", status)
    # To this answer huggingface_hub's create_repo would ask again at once, without end.
    conflicting = status == 409 and asked.endswith("/api/repos/create") and "conflicting operation" in response.text
    if status in TRANSIENT or conflicting:
        wait = _retry_after(response.headers)
        wish = f" (it asks to wait {wait:.0f} s)" if wait else ""
        raise Doubt(f"{_status(status)} at {asked}: {_said(response)}{wish}", status, wait)


def _said(response: Any) -> str:
    """The reason that the Hub gives, in a header or in the body."""
    try:
        reason = response.headers.get("X-Error-Message") or response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return "no reason given"
    return str(reason)


def _retry_after(headers: Any) -> float | None:
    """Seconds that the Hub asks to wait: Retry-After, in seconds or as a date, or what is left of its rate limit."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isdigit():
        return float(asked)
    if asked:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
        except ValueError:
            return None
    limit = re.search(r"\br=0\b.*?\bt=(\d+)", headers.get("RateLimit", ""))
    return float(limit[1]) if limit else None


def _xet(error: BaseException) -> Doubt | Refusal:
    """hf_xet raises builtin exceptions, and tells the status of a refusal only in their text."""
    problem = f"the upload through Xet failed: {_first_line(error)}"
    refused = re.search(r"client error \((401|403|404)\b", problem)
    if refused is None:
        return Doubt(problem)
    hint = " (a Hub without Xet? HF_HUB_DISABLE_XET=1 uploads without it)" if refused[1] == "404" else ""
    return Refusal(problem + hint, int(refused[1]))


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]


@contextmanager
def progress_bars(wanted: bool) -> Iterator[None]:
    """huggingface_hub's own bars, shown or not."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hide = not wanted and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
