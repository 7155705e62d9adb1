"""Requests to the Hub through huggingface_hub, with the rules of ``retry.py`` for what a failure means.

    huggingface_hub → its HTTP client, inside ``guarded()`` → answer | Trouble (look, wait, ask again) | Refused

huggingface_hub retries some requests and not others, has no time-out for most, sleeps as long as a Retry-After says,
reads bodies of any length, and cannot know whether a request whose answer was lost has been done. So a request of a
thread that is inside ``guarded()`` ends in time, in an answer to go by, or in Trouble or Refused, which huggingface_hub
hands through; other threads' requests are as they always were. Xet's client is another, written in Rust, with retries
of its own: of it only the errors are read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from converters.download.addresses import endpoint, is_offline
from converters.download.answers import led_on, whole
from converters.download.retry import TRANSIENT, Pace, Patience, Refused, Trouble, asked_wait
from converters.errors import BitConvertError
from converters.redaction import one_line, remember_secret

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONFLICT = frozenset({409, 412})
"""Somebody was faster: what is there has to be looked at again."""

_GUARD: ContextVar[tuple[Patience, Callable[[str], None]] | None] = ContextVar("guard", default=None)
_LOCK = threading.Lock()
_hiding: list[bool] = []
"""One item a thread that wants no bars: whether they were to be seen before the first."""


def patience_with(pace: Pace, token: str | None = None) -> Patience:
    """For the Hub of the environment, asked with this token, or with the one of the login."""
    from huggingface_hub import get_token

    return Patience(pace, urlsplit(endpoint()).netloc, token or get_token() or "")


def client(token: str | None) -> HfApi:
    """Returns a client, for one pass of requests. The token is asked for each time: those of a login by browser are
    short-lived. Raises Refused offline, without a token, and for a token that can be none."""
    from huggingface_hub import HfApi, get_token

    if is_offline():
        raise Refused("BIT_CONVERT_OFFLINE or HF_HUB_OFFLINE is set, so nothing is asked of the network")
    token = token or get_token()
    if token is None:
        raise Refused("no token was found", HTTPStatus.UNAUTHORIZED)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Refused("the token has characters that no token has", HTTPStatus.UNAUTHORIZED)
    remember_secret(token)
    return HfApi(endpoint=endpoint(), token=token, library_name="bit-convert")


@contextmanager
def guarded(patience: Patience, sent: Callable[[str], None] = lambda path: None) -> Iterator[None]:
    """Inside, each request of this thread ends in time, and in an answer to go by.

    What says nothing certain raises Trouble, 401 and 403 raise Refused, before huggingface_hub retries or rewords them.
    ``sent`` is told the path of each upload that was taken. Threads that huggingface_hub starts are inside only where
    it is given ``guarded_bars``.
    """
    _install()
    token = _GUARD.set((patience, sent))
    try:
        yield
    finally:
        _GUARD.reset(token)


def guarded_bars() -> Any:
    """A class of bars that are not shown. The threads of a pool that is made for them are as guarded as this one: tqdm
    has each call ``set_lock`` before its work."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    guard = _GUARD.get()

    class Bars(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        @classmethod
        def set_lock(cls, lock: Any) -> None:
            super().set_lock(lock)
            _GUARD.set(guard)

    return Bars


def _install() -> None:
    """From now on huggingface_hub's clients ask whether the thread is guarded; each is otherwise as it was."""
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils import _http

    with _LOCK:
        if isinstance(get_session().send, partial):
            return
        make = _http._GLOBAL_CLIENT_FACTORY

        def factory() -> Any:
            client = make()
            client.send = partial(_send, client.send)  # type: ignore[method-assign]
            return client

        set_client_factory(factory)


def _send(send: Callable[..., Any], request: Any, *, stream: bool = False, **options: Any) -> Any:
    guard = _GUARD.get()
    if guard is None:
        return send(request, stream=stream, **options)
    patience, sent = guard
    asked = f"{request.method} {request.url.path}"
    follow = options.pop("follow_redirects", True) is not False
    try:
        response = led_on(partial(send, stream=True, follow_redirects=False, **options), request, patience, follow)
        if not stream or response.status_code >= 400:
            response = whole(response, patience)
    except _http_error() as error:
        raise Trouble(f"{type(error).__name__} at {asked}: {_first_line(error)}") from None
    _judge(response, asked)
    if request.method == "PUT" and response.is_success:
        sent(request.url.path)
    return response


def _http_error() -> type[Exception]:
    """HTTPError of the HTTP library in use: httpx, or httpx2 since 2.0."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def meaning(error: Exception) -> Trouble | Refused:
    """Returns what an exception of huggingface_hub says about the request, printable; raises an error of ours.

    One that it does not know of is taken for an answer that is none of a Hub's, whatever its reader stumbled over.
    """
    if isinstance(error, BitConvertError):
        raise error
    found = _meaning(error)
    return type(found)(one_line(found.problem), found.status, found.wait)


def _meaning(error: Exception) -> Trouble | Refused:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Trouble | Refused):
            return cause
        cause = cause.__cause__
    match error:
        case LocalEntryNotFoundError():  # in a thread of huggingface_hub's own
            return Trouble(f"a file could not be had: {_first_line(error)}")
        case HfHubHTTPError():
            status = error.response.status_code
            problem = f"{_status(status)}: {error.server_message or 'no reason given'}"
            return Trouble(problem, status) if status in CONFLICT | TRANSIENT else Refused(problem, status)
        case OfflineModeIsEnabled():
            return Refused("HF_HUB_OFFLINE is set, so nothing is asked of the network")
        case LocalTokenNotFoundError():
            return Refused("no token was found", HTTPStatus.UNAUTHORIZED)
        case ConnectionError() | PermissionError() | RuntimeError():
            return _xet(error)
        case OSError():
            return Refused(f"a local file cannot be read or written: {_first_line(error)}")
        case ValueError() if "Invalid metadata in README.md" in str(error):
            return Refused(" ".join(str(error).split()))
        case _ if isinstance(error, _http_error()):
            return Trouble(f"{type(error).__name__}: {_first_line(error)}")
        case _ if type(error).__module__.startswith("huggingface_hub"):
            return Refused(_first_line(error))
        case _:
            return Trouble(f"an answer that is not a Hub's ({type(error).__name__}: {_first_line(error)})")


def _judge(response: Any, asked: str) -> None:
    status = response.status_code
    if status in (401, 403):
        raise Refused(f"{_status(status)} at {asked}: {_said(response)}", status)
    # To this answer huggingface_hub's create_repo would ask again at once, without end.
    conflicting = status == 409 and asked.endswith("/api/repos/create") and "conflicting operation" in response.text
    if status in TRANSIENT or conflicting:
        wait = asked_wait(response.headers)
        wish = f" (it asks to wait {wait:.0f} s)" if wait else ""
        raise Trouble(f"{_status(status)} at {asked}: {_said(response)}{wish}", status, wait)


def _said(response: Any) -> str:
    """The reason that the Hub gives, in a header or in the body."""
    try:
        return str(response.headers.get("X-Error-Message") or response.json()["error"])
    except Exception:  # whatever is there instead is no reason
        return "no reason given"


def _xet(error: BaseException) -> Trouble | Refused:
    """hf_xet raises builtin exceptions, and tells the status of a refusal only in their text."""
    problem = f"the transfer through Xet failed: {_first_line(error)}"
    refused = re.search(r"client error \((401|403|404)\b", problem)
    if refused is None:
        return Trouble(problem)
    hint = " (a Hub without Xet? HF_HUB_DISABLE_XET=1 uploads without it)" if refused[1] == "404" else ""
    return Refused(problem + hint, int(refused[1]))


def _status(status: int) -> str:
    return f"{status} {responses.get(status, '')}".rstrip()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]


@contextmanager
def without_bars() -> Iterator[None]:
    """Inside, huggingface_hub shows none of its bars: in the whole process, for it has no other way."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    with _LOCK:
        _hiding.append(not are_progress_bars_disabled() if not _hiding else _hiding[0])
        disable_progress_bars()
    try:
        yield
    finally:
        with _LOCK:
            shown = _hiding.pop()
            if shown and not _hiding:
                enable_progress_bars()
