"""A server's answers, taken in within bounds: nothing that it says is believed before it is looked at.

    request → ``led_on`` (redirects, their bodies unread) → answer → ``whole`` (a bounded body)

For httpx's and httpx2's answers alike, which have the same interface.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import Any

from converters.download.retry import Patience, Refused, Trouble

MAX_REDIRECTS = 20
LONGEST_BODY = 64 << 20
"""Bytes of an answer that is read as a whole; the list of a large repository's files takes some megabytes."""
LONGEST_ERROR = 1 << 16
"""Bytes that are read of an answer that says what went wrong."""


def led_on(send: Callable[[Any], Any], request: Any, patience: Patience, follow: bool = True) -> Any:
    """The answer to a request, asked when that is due and in no other encoding, wherever it leads, its body still to be
    read.

    The bodies of redirects are not read: they may be of any length, and come at any pace. Raises Refused for redirects
    without end, and for one from https to http.
    """
    patience.admit()
    request.headers["Accept-Encoding"] = "identity"  # else a server may send other bytes than the file's
    request.extensions = {**request.extensions, "timeout": patience.timeouts()}
    for _ in range(MAX_REDIRECTS + 1):
        with _in_time(request, sum(patience.timeouts()[kind] for kind in ("connect", "read"))):
            answer = send(request)
        patience.answered()
        if not follow or answer.next_request is None:
            return answer
        answer.close()
        following = answer.next_request
        if (request.url.scheme, following.url.scheme) == ("https", "http"):
            raise Refused("leads from https to unprotected http. Fetch it by hand if you trust it")
        request = following
    raise Refused("redirects without end. Check the URL")


@contextmanager
def _in_time(request: Any, seconds: float) -> Iterator[None]:
    """Ends a request without a body whose answer has not begun by then: each byte of it begins another time-out."""
    sockets: list[socket.socket] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            sockets.append(info["return_value"].get_extra_info("socket"))

    def end() -> None:
        for each in sockets:
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    if request.method not in ("GET", "HEAD"):
        yield
        return
    request.extensions = {**request.extensions, "trace": trace}
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def whole(answer: Any, patience: Patience) -> Any:
    """The answer with its body, as it was sent, read and closed: of an error what arrives in short.

    Raises Trouble for a body that is too long, too slow or compressed, which was not asked for.
    """
    failed = answer.status_code >= 400
    limit, end = LONGEST_ERROR if failed else LONGEST_BODY, patience.pace.now() + patience.pace.timeout
    encoded = answer.headers.get("Content-Encoding", "identity").lower() != "identity"
    body = bytearray()
    with closing(answer), suppress(Exception) if failed else nullcontext():
        for piece in () if encoded else answer.iter_raw():
            body += piece
            if len(body) > limit or patience.pace.now() > end:
                encoded = True
                break
    if encoded and not failed and answer.request.method != "HEAD":
        raise Trouble("an answer that is too long, too slow or compressed")
    headers = [(name, value) for name, value in answer.headers.raw if name.lower() != b"content-encoding"]
    return type(answer)(answer.status_code, headers=headers, content=bytes(body), request=answer.request)


def length(text: str | None) -> int | None:
    """A number of bytes in a header; None for what is none that a disk can hold."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def mark(text: str | None) -> str | None:
    """An ETag or a date that can be sent back; None for one that cannot."""
    return text if text and len(text) <= 1000 and text.isascii() and text.isprintable() else None
