"""A real HTTP server of files on 127.0.0.1, with Range, If-Range, ETag and the faults that servers and networks have.

with FileServer({"/BiT.npz": data}) as server:
    server.faults += [Fault(cut=1000), None, Fault(status=503)]   # of the next requests, in order
    ...                                                           # server.url("/BiT.npz")
    server.sent, server.requests                                  # what it was asked, what went out
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mmap import mmap
from pathlib import Path

PIECE = 16 << 10
DAY = "Mon, 02 Jan 2023 03:04:05 GMT"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer."""

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Sent as well, or instead; None: left out."""
    body: bytes | None = None
    """Instead of the file."""
    cut: int | None = None
    """The connection ends after so many bytes of the body."""
    reset: bool = False
    """The cut is a reset."""
    ignores_range: bool = False
    corrupt: int | None = None
    """The byte of the body that is flipped."""
    pause: float = 0.0
    """Seconds before each piece of the body."""
    chunked: bool = False
    no_answer: bool = False
    """The connection ends before the answer."""


FINE = Fault()


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    method: str
    path: str
    headers: Mapping[str, str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break are what this server is for."""


class FileServer:
    """Serves ``files`` (path → bytes, or a mapped file); one fault of ``faults`` a request, then ``always``."""

    def __init__(
        self, files: Mapping[str, bytes | mmap], *, always: Fault = FINE, certificate: tuple[Path, Path] | None = None
    ) -> None:
        self.files = dict(files)
        self.faults: list[Fault | None] = []
        self.always = always
        self.requests: list[Request] = []
        self.sent = 0
        """Bytes of bodies that went out."""
        self._lock = threading.Lock()
        self._scheme = "https" if certificate else "http"
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": self}))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str, user: str = "", host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{user}{'@' if user else ''}{host}:{self._server.server_port}{path}"

    def etag(self, path: str) -> str:
        return '"' + hashlib.md5(self.files[path]).hexdigest() + '"'

    def take_fault(self) -> Fault:
        with self._lock:
            return (self.faults.pop(0) if self.faults else None) or self.always

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent


class _Handler(BaseHTTPRequestHandler):
    files: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.files.note(Request("GET", self.path, dict(self.headers)))
        fault = self.files.take_fault()
        if fault.no_answer:
            self._break(reset=False)
        elif fault.status is not None:
            self._answer(fault.status, {}, fault.body or b"", fault)
        elif path not in self.files.files:
            self._answer(404, {}, b"no such file", fault)
        else:
            self._serve(path, fault)

    def _serve(self, path: str, fault: Fault) -> None:
        data = self.files.files[path] if fault.body is None else fault.body
        headers = {"Last-Modified": DAY, "Accept-Ranges": "bytes"} | dict(fault.headers)
        if "ETag" not in headers:
            headers["ETag"] = self.files.etag(path)
        etag, modified = headers["ETag"], headers["Last-Modified"]
        if etag and self.headers.get("If-None-Match") == etag:
            return self._answer(304, headers, b"", fault)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted or fault.ignores_range or self.headers.get("If-Range") not in (None, etag, modified):
            return self._answer(200, headers, data, fault)
        start = int(wanted[1])
        if start >= len(data):
            return self._answer(416, headers | {"Content-Range": f"bytes */{len(data)}"}, b"", fault)
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._answer(206, headers, data[start:], fault)

    def _answer(self, status: int, headers: Mapping[str, str | None], body: bytes | mmap, fault: Fault) -> None:
        headers = {"Content-Length": str(len(body)), **headers, **fault.headers}
        if fault.chunked:
            headers |= {"Content-Length": None, "Transfer-Encoding": "chunked"}
        if status == 304 or headers["Content-Length"] != str(len(body)):
            self.close_connection = True
        self.send_response(status)
        for name, value in headers.items():
            if value is not None and not (status == 304 and name == "Content-Length"):
                self.send_header(name, value)
        self.end_headers()
        if fault.corrupt is not None:
            body = body[: fault.corrupt] + bytes([body[fault.corrupt] ^ 1]) + body[fault.corrupt + 1 :]
        try:
            self._send(body if fault.cut is None else body[: fault.cut], fault)
        except OSError:  # the client hung up
            self.close_connection = True
            return
        if fault.cut is not None and fault.cut < len(body):
            self._break(fault.reset)

    def _send(self, body: bytes | mmap, fault: Fault) -> None:
        for at in range(0, len(body), PIECE):
            time.sleep(fault.pause)
            piece = body[at : at + PIECE]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if fault.chunked else piece)
            self.files.count(len(piece))
        if fault.chunked and fault.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _break(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self._wait_until_received()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _wait_until_received(self) -> None:
        """What the client's system does not have yet, a reset would take back: of a slow client, any part of it."""
        end, left = time.monotonic() + 5, bytes(4)
        while time.monotonic() < end:
            with suppress(OSError):
                left = fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))
            if not any(left):
                return
            time.sleep(0.001)


class RawServer:
    """Answers every connection with these bytes, whatever it was asked: ``with RawServer(b"HTTP/1.1 …") as url``."""

    def __init__(self, answer: bytes, *, pause: float = 0.0) -> None:
        self._answer = answer
        self._pause = pause
        self._socket = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # or the thread that waits on it answers a later test's request
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer_one, args=(self._socket.accept()[0],), daemon=True).start()

    def _answer_one(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(1 << 16)
            for at in range(0, len(self._answer), 1) if self._pause else ():
                connection.sendall(self._answer[at : at + 1])
                time.sleep(self._pause)
            connection.sendall(b"" if self._pause else self._answer)
