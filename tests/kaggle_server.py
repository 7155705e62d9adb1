"""A server on 127.0.0.1 that has models as Kaggle's API does: versions, file lists, files, and archives of many files.

with KaggleServer({"google/bit/tensorFlow2/m-r50x1/1": {"saved_model.pb": b"…"}}) as server:
    server.faults["…/download/saved_model.pb"] = 404   # or bytes to send instead
    ...                                                # KAGGLE_API_ENDPOINT=server.url
    server.requests                                    # what it was asked
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API = "/api/v1/models/"
MOST_LISTED = 25


class KaggleServer:
    """Serves ``models``: handle with its version → name → content."""

    def __init__(self, models: Mapping[str, Mapping[str, bytes]]) -> None:
        self.models = dict(models)
        self.faults: dict[str, int | bytes] = {}
        """End of a path → the status, or the body, to answer with."""
        self.cut: set[str] = set()
        """Ends of paths whose bodies are cut in half."""
        self.requests: list[str] = []
        self.archived = False
        """Whether models are too large for a list of files."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kaggle": self}))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> KaggleServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> bytes | dict | None:
        """The body for a path below the API; None for what is not there."""
        instance, _, rest = path.partition("/get")
        if not rest and path.endswith("/get"):
            versions = [int(handle.rpartition("/")[2]) for handle in self.models if handle.startswith(instance + "/")]
            return {"versionNumber": max(versions)} if versions else None
        for handle, files in self.models.items():
            if path == f"{handle}/files":
                more = "more" if self.archived or len(files) > MOST_LISTED else ""
                return {"files": [{"name": name} for name in files][:MOST_LISTED], "nextPageToken": more}
            if path == f"{handle}/download":
                return archive_of(files)
            if path.startswith(f"{handle}/download/"):
                return files.get(path.removeprefix(f"{handle}/download/"))
        return None


def archive_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.kaggle.requests.append(path)
        fault = next((fault for end, fault in self.kaggle.faults.items() if path.endswith(end)), None)
        body = self.kaggle.answer(path.removeprefix(API)) if path.startswith(API) else None
        status = 200
        if isinstance(fault, bytes):
            body = fault
        elif fault is not None or body is None:
            status, body = fault or 404, {"code": fault or 404, "message": "as asked"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Kaggle-HubVersion", "99.0.0")
        if isinstance(body, bytes):
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if any(path.endswith(end) for end in self.kaggle.cut):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""
