"""Downloads a file into the cache: every byte once, whole, or not at all.

    URL → the cache's slot, locked → requests until the partial file is whole → checks → a version in the cache

A cut download goes on where it stopped (Range), and only where the server vouches, by a strong validator in If-Range,
that the rest is of the same version (RFC 9110, 13.1.5 and 14). huggingface_hub's http_get does not ask for that, and
would piece two versions together; obstore follows redirects and retries by rules of its own.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from converters.download.addresses import fetchable, is_offline, mirrored, without_credentials
from converters.download.answers import led_on, length, mark
from converters.download.cache import CacheEntry, Slot, Version
from converters.download.retry import TRANSIENT, Pace, Patience, Refused, Trouble, asked_wait, http_date
from converters.errors import BitConvertError, CheckpointError, HubError, Scope, UsageError
from converters.files import PIECE, VARIABLE
from converters.redaction import one_line, printable
from converters.sources.zips import member_names
from verify.protocols import Progress

if TYPE_CHECKING:
    import httpx

PACE = Pace(timeout=30.0)
WHAT = "downloading"
MAX_VERSIONS = 5
"""Times that a file may turn out to be another version while it is being fetched."""
SAME_SECOND = 60.0
"""A Last-Modified so many seconds older than the answer cannot hide a second version (RFC 9110, 8.8.2.2)."""
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
STORED_MD5 = re.compile(r"\bmd5=([A-Za-z0-9+/]{22}==)")
"""In Google's ``x-goog-hash: crc32c=…,md5=…`` (cloud.google.com/storage/docs/xml-api/reference-headers)."""
SIGN_IN = "It needs a sign-in, or is not public: fetch it by hand and give the file with --checkpoint."
GONE = "Check the URL, or fetch the file elsewhere and give it with --checkpoint."
REMEDIES = {
    401: SIGN_IN,
    403: SIGN_IN,
    404: GONE,
    407: "The proxy asks for a sign-in: put user and password into HTTPS_PROXY.",
    410: GONE,
}
LOG = logging.getLogger(__name__)


def cached(
    url: str,
    *,
    size: int | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    pace: Pace = PACE,
) -> Path:
    """The file at ``url``, from the cache, fetched first where it is not there whole.

    ``url`` is an http(s), gs:// or tfhub.dev address; credentials in it go to its own host only. A mirror that the
    environment names is asked instead, and the cache knows the file by ``url`` all the same. The file keeps the last
    part of the URL as its name. With ``size`` (bytes) given, one certain version is meant: a file in the cache that has
    it is used without asking the server; without, the server is asked whether it has a newer version, and the cached
    one serves where it cannot be asked. ``offline`` (or the environment) forbids all requests.

    Raises HubError where the server refuses or cannot be reached, or nothing new arrives for ``pace.silence`` seconds
    (what has arrived is kept, and the next call goes on with it); CheckpointError where what arrived is not the file
    that was expected (nothing of it is kept); UsageError for a URL or an environment that cannot work, or a full disk.
    """
    address, credentials = without_credentials(fetchable(url))
    slot, offline = Slot.of(address), is_offline(offline)
    if found := _usable(slot, size, offline):
        return found
    if offline:
        raise HubError(f"{url}: not in the cache ({slot.folder.parent}), and offline. Run it once without.")
    asked, of_mirror = without_credentials(mirrored(address))
    with slot.locked():
        # Another process may have fetched it while this one waited.
        if found := _usable(slot, size, offline):
            return found
        with _Server(asked, credentials if asked == address else of_mirror, pace) as server:
            if (whole := slot.whole()) and size is None and _is_current(server, whole[1]):
                return whole[0]
            return _Download(server, slot, size, progress or (lambda *_: None)).run()


class _Server:
    """An address, and the client that asks it, with proxies and CA bundles from the environment."""

    def __init__(self, url: str, credentials: tuple[str, str] | None, pace: Pace) -> None:
        import httpx

        self.url = url
        self.patience = Patience(pace, urlsplit(url).netloc)
        self._credentials = credentials
        try:
            self._client = httpx.Client(
                verify=_trust(),
                headers={"User-Agent": "bit-convert"},
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            # Not the error's text: it may quote a proxy's password.
            raise UsageError(
                f"the environment's proxy or CA bundle cannot be used ({type(error).__name__}). "
                "Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and REQUESTS_CA_BUNDLE."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def shown(self) -> str:
        return printable(self.url)

    @contextmanager
    def answer(self, **headers: str) -> Iterator[httpx.Response]:
        """The answer to a request with these headers, its body to be read as raw bytes.

        Raises Trouble for what may pass, and what no second try would mend as HubError or UsageError: whatever reading
        an answer raises, it is the server's fault.
        """
        import httpx

        try:
            asked = self._client.build_request("GET", self.url, headers=headers)
            answer = led_on(lambda request: self._send(request, request is asked), asked, self.patience)
            with closing(answer):
                yield answer
        except (BitConvertError, Trouble, OSError):
            raise
        except Refused as refusal:
            raise HubError(f"{self.shown}: {refusal}.") from refusal
        except httpx.InvalidURL as error:
            raise UsageError(f"{self.shown}: not a well-formed URL. Check it.") from error
        except httpx.UnsupportedProtocol as error:
            raise HubError(f"{self.shown}: leads to an address that is not http(s). Check the URL.") from error
        except httpx.TransportError as error:
            raise self._failed(error) from error
        except Exception as error:
            raise HubError(
                f"{self.shown}: the server's answer cannot be read ({type(error).__name__}). Check the URL."
            ) from error

    def _send(self, request: httpx.Request, first: bool) -> httpx.Response:
        """Credentials go with the first request; httpx takes them out of one that leads to another host."""
        auth = self._credentials if first else None
        return self._client.send(request, stream=True, follow_redirects=False, auth=auth)

    def _failed(self, error: httpx.TransportError) -> Exception:
        if "location header" in str(error):
            return HubError(f"{self.shown}: leads to an address that is none. Check the URL.")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return HubError(
                f"{self.shown}: the server's certificate is not trusted ({_reason(error)}).\n"
                "Behind a company's proxy, name its CA bundle in SSL_CERT_FILE."
            )
        return Trouble(_reason(error))


class _Digests:
    """The digests of the first ``length`` bytes of a file: taken while more of it is waited for."""

    def __init__(self, *names: str) -> None:
        self.length, self.names = 0, names
        self._running = {name: hashlib.new(name, usedforsecurity=False) for name in names}

    def update(self, data: bytes | memoryview) -> None:
        for digest in self._running.values():
            digest.update(data)
        self.length += len(data)

    def __getitem__(self, name: str) -> str:
        return self._running[name].hexdigest()


class _Download:
    """The requests that it takes to make one partial file whole."""

    def __init__(self, server: _Server, slot: Slot, expected: int | None, progress: Progress) -> None:
        self._server = server
        self._slot = slot
        self._expected = expected
        """Bytes of the file."""
        self._progress = progress
        self._furthest = 0
        self._versions = 0
        self._end = self._pace.now() + self._pace.deadline
        self._pieced = False
        """Whether the partial file was made of more than one answer."""
        self._digests = _Digests()

    @property
    def _pace(self) -> Pace:
        return self._server.patience.pace

    def run(self) -> Path:
        try:
            for _ in range(2):
                version = self._copied() if self._server.url.startswith("file:") else self._arrived()
                digest, fault = self._inspect(version)
                if fault is None:
                    return self._slot.finish(version, digest, self._server.shown)
                self._slot.drop()
                self._digests = _Digests()
                if not self._pieced:
                    break
                self._furthest = 0  # perhaps the pieces did not fit: once more from the beginning
            raise CheckpointError(f"{self._server.shown}: {fault}\nNothing was kept.")
        except OSError as error:
            raise self._slot.unusable(error) from error

    def _copied(self) -> Version:
        """The file of a mirror on this machine; of a TF-Hub module also its .tar.gz."""
        path = Path(unquote(urlsplit(self._server.url).path))
        found = next((each for each in (path, Path(f"{path}.tar.gz")) if each.is_file()), None)
        if found is None:
            raise HubError(f"{path}: no such file in the mirror. Put it there, or unset the mirror.")
        version = Version(total=found.stat().st_size)
        self._slot.start(version)
        self._require_room(version)
        shutil.copyfile(found, self._slot.partial)
        return version

    def _arrived(self) -> Version:
        """Asks until the partial file is as long as its version says, and returns that."""
        while True:
            try:
                return self._request()
            except Trouble as trouble:
                self._pause(trouble)

    def _request(self) -> Version:
        """One request and its answer, appended to the partial file; raises Trouble if that is not yet whole."""
        held, done = self._slot.partial_version(), self._slot.done
        if held and done and done == held.total:
            self._pieced = True
            return held
        headers = {}
        if held and done and held.validator:
            headers = {"Range": f"bytes={done}-", "If-Range": held.validator}
        with self._server.answer(**headers) as response:
            self._refuse(response)
            if response.status_code == 200:
                version = self._begin(held, response)
            elif held and headers and (continued := _continued(response, held, done)):
                version, self._pieced = continued, True
            else:
                self._discard()
                raise Trouble("the server answered with a part that does not fit")
            self._require_room(version)
            self._save(response, version)
        if version.total is not None and self._slot.done < version.total:
            raise Trouble(f"the answer ended after {self._slot.done} of {version.total} bytes")
        return version

    def _begin(self, held: Version | None, response: httpx.Response) -> Version:
        """A whole file is coming: makes sure of what can be told beforehand, and empties the partial file."""
        version = _version(response)
        if held and held != version:
            self._discard()
        self._slot.drop()
        total, size = version.total, self._expected
        if size is not None and total is not None and size != total:
            raise CheckpointError(
                f"{self._server.shown}: the server has {total} bytes, not the {size} expected: another file, or a "
                "web page.\nNothing was kept. Check the URL."
            )
        # Of the others, the checks would notice a file that was cut short.
        provable = size is not None or self._slot.name.endswith(".npz")
        if total is None and "Transfer-Encoding" not in response.headers and not provable:
            raise HubError(f"{self._server.shown}: the server does not say how long the file is. Fetch it by hand.")
        self._slot.start(version)
        self._pieced = False
        return version

    def _require_room(self, version: Version) -> None:
        free = shutil.disk_usage(self._slot.folder).free
        if version.total is not None and version.total - self._slot.done > free:
            raise UsageError(
                f"{self._slot.folder.parent}: {version.total / 1e6:.0f} MB do not fit on the disk: {free / 1e6:.0f} MB "
                f"are free. Make room, or set {VARIABLE} to another folder.",
                Scope.RUN,
            )

    def _save(self, response: httpx.Response, version: Version) -> None:
        done, digests = self._slot.done, self._digests_of(version)
        most = version.total if version.total is not None else self._expected
        with self._slot.partial.open("ab") as file:
            self._progress(WHAT, done, version.total or 0)
            # Without a chunk size: httpx would hold back, and lose, the last bytes before a cut.
            for data in response.iter_raw():
                file.write(data)
                digests.update(data)
                done += len(data)
                if most is not None and done > most:
                    self._slot.drop()
                    raise CheckpointError(f"{self._server.shown}: more than the {most} bytes expected. Check the URL.")
                if done > self._furthest:
                    self._furthest = done
                    self._server.patience.progress()
                self._progress(WHAT, done, version.total or 0)
                self._heed_deadline()

    def _discard(self) -> None:
        """The partial file turned out to be of another version than the server's."""
        self._slot.drop()
        self._furthest = 0
        self._versions += 1
        if self._versions > MAX_VERSIONS:
            raise HubError(
                f"{self._server.shown}: the server keeps answering with another version. Try again later.",
                Scope.PASSING,
            )

    def _refuse(self, response: httpx.Response) -> None:
        """Raises what a status other than success means."""
        status = response.status_code
        if status in (200, 206):
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise HubError(
                    f"{self._server.shown}: the server sends the file in another encoding. Fetch it by hand."
                )
            return
        what = f"{status} {response.reason_phrase}".strip()
        if status == 416:
            self._discard()
        if status == 416 or status in TRANSIENT:
            raise Trouble(what, status, asked_wait(response.headers))
        remedy = REMEDIES.get(status, "Check the URL.")
        raise HubError(f"{self._server.shown}: the server answered {what}. {remedy}")

    def _pause(self, trouble: Trouble) -> None:
        """Waits before the next request; raises HubError where that would be beyond patience or deadline."""
        if not self._server.patience.pause(trouble, lambda line: self._progress(line, self._slot.done, 0)):
            asked = f", and asks to wait {trouble.wait:.0f} s" if trouble.wait else ""
            raise HubError(
                f"{self._server.shown}: gave up: {trouble}{asked}. {self._kept()}\n"
                "Check the network (and a proxy: HTTPS_PROXY), and run it again.",
                Scope.PASSING,
            ) from trouble
        self._heed_deadline()

    def _heed_deadline(self) -> None:
        if self._pace.now() > self._end:
            raise HubError(
                f"{self._server.shown}: not done after {self._pace.deadline:.0f} s. {self._kept()} "
                "Run it again to go on."
            )

    def _kept(self) -> str:
        done = self._slot.done
        return f"The {done / 1e6:.1f} MB that arrived are kept." if done else "Nothing has arrived."

    def _digests_of(self, version: Version) -> _Digests:
        """The digests of the partial file, which is read only where it did not grow under these hands."""
        names = ("sha256", "md5") if version.md5 else ("sha256",)
        if (self._digests.length, self._digests.names) != (self._slot.done, names):
            self._digests, buffer = _Digests(*names), memoryview(bytearray(PIECE))
            with self._slot.partial.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    self._digests.update(buffer[:count])
        return self._digests

    def _inspect(self, version: Version) -> tuple[str, str | None]:
        """The sha256 of the file that arrived, and what is wrong with it, if anything."""
        path, size, digests = self._slot.partial, self._slot.done, self._digests_of(version)
        digest = digests["sha256"]
        with path.open("rb") as file:
            head = file.read(512).lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html")) and not self._slot.name.endswith((".html", ".htm")):
            return digest, "a web page arrived instead of the file. Check the URL, and whether it needs a sign-in."
        if self._expected not in (None, size):
            return digest, f"{size} bytes arrived, not the {self._expected} expected. Check the URL."
        if version.md5 and version.md5 != digests["md5"]:
            return digest, "the bytes that arrived are not the server's (their MD5 differs). Run it again."
        if self._slot.name.endswith(".npz") and member_names(path) is None:
            return digest, "no whole .npz file arrived (a zip archive with its directory). Check the URL."
        return digest, None


def _usable(slot: Slot, size: int | None, offline: bool) -> Path | None:
    """The file in the cache, where it is the right one beyond asking."""
    whole = slot.whole()
    if whole is None or size not in (None, whole[1].size):
        return None
    return whole[0] if offline or size is not None else None


def _is_current(server: _Server, entry: CacheEntry) -> bool:
    """Whether the server still has this version; said to be so where it cannot be asked, or cannot know it."""
    if entry.origin not in ("", server.shown):  # a mirror's, or the other way round
        return True
    if entry.etag:
        condition = {"If-None-Match": entry.etag}
    elif entry.modified:
        condition = {"If-Modified-Since": entry.modified}
    else:
        return server.url.startswith("file:")
    try:
        with server.answer(**condition) as response:
            if response.is_success:
                same = mark(response.headers.get("ETag")), mark(response.headers.get("Last-Modified"))
                return same == (entry.etag, entry.modified)
            if response.status_code != 304:
                LOG.warning("%s: answered %d; the file in the cache is used.", server.shown, response.status_code)
    except (Trouble, HubError) as error:
        reason = _reason(error) if isinstance(error, Trouble) else "its answer cannot be read"
        LOG.warning("%s: could not be asked (%s); the file in the cache is used.", server.shown, reason)
    return True


def _trust() -> ssl.SSLContext:
    """The certificates to trust: httpx heeds SSL_CERT_FILE and SSL_CERT_DIR; requests and curl have other names."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return _context(*(os.environ.get(name) for name in names))


@lru_cache(maxsize=1)  # reading certifi's bundle takes as long as all else of a look at a file that is there
def _context(file: str | None, folder: str | None, *bundles: str | None) -> ssl.SSLContext:
    import httpx

    bundle = next(filter(None, bundles), None)
    if not bundle or file or folder:
        return httpx.create_ssl_context()
    if Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


def _version(response: httpx.Response) -> Version:
    """Returns what a 200 answer says of the file it brings."""
    headers = response.headers
    etag, modified = mark(headers.get("ETag")), mark(headers.get("Last-Modified"))
    return Version(
        etag=etag,
        modified=modified,
        validator=etag if etag and not etag.startswith("W/") else _strong_date(modified, headers.get("Date"), etag),
        total=length(headers.get("Content-Length")),
        md5=base64.b64decode(found[1]).hex() if (found := STORED_MD5.search(headers.get("x-goog-hash", ""))) else None,
    )


def _strong_date(modified: str | None, now: str | None, etag: str | None) -> str | None:
    """Last-Modified, where it tells versions apart and the server gives no ETag."""
    then, answered = http_date(modified or ""), http_date(now or "")
    old = then is not None and answered is not None and answered - then >= SAME_SECOND
    return modified if old and not etag else None


def _continued(response: httpx.Response, held: Version, done: int) -> Version | None:
    """The held version, if a 206 answer goes on where the partial file stops and is of the same version."""
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != done:
        return None
    total = None if found[2] == "*" else int(found[2])
    etag, modified = mark(response.headers.get("ETag")), mark(response.headers.get("Last-Modified"))
    fits = total in (None, held.total or total) and etag in (None, held.etag) and modified in (None, held.modified)
    return replace(held, total=held.total or total) if fits else None


def _reason(error: Exception) -> str:
    return one_line(error, 120) or type(error).__name__
