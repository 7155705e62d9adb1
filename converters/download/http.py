"""Downloads a file into the cache: every byte once, whole, or not at all.

    URL → the cache's slot, locked → requests until the partial file is whole → checks → a version in the cache

A cut download goes on where it stopped (Range), and only where the server vouches, by a strong validator in If-Range,
that the rest is of the same version (RFC 9110, 13.1.5 and 14). Troubles that pass are tried again, with pauses that
grow and that heed Retry-After, until nothing new has arrived for ``patience`` seconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import random
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from converters.download.cache import VARIABLE, Entry, Slot, Version, cache_folder
from converters.errors import CheckpointError, HubError, UsageError
from converters.files import sha256 as sha256_of
from converters.redaction import printable
from converters.sources.zips import is_whole_zip

if TYPE_CHECKING:
    import httpx

__all__ = ["Progress", "cache_folder", "cached", "fetchable", "shown"]

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and the bytes of the whole file, None where the server does not say."""

CONNECT_TIMEOUT = 15.0
DEADLINE = 24 * 3600.0
LONGEST_PAUSE = 20.0
MAX_DOUBLINGS = 32
UNREACHED = 0.25
"""Share of the patience that a host gets that never answered: a wrong name or no network, rather than a fault."""
MAX_VERSIONS = 5
"""Times that a file may turn out to be another version while it is being fetched."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses after which the same request may succeed."""
SAME_SECOND = timedelta(seconds=60)
"""A Last-Modified this much older than the answer cannot hide a second version (RFC 9110, 8.8.2.2)."""
BUCKETS = "https://storage.googleapis.com"
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Limits:
    """How long to wait, in seconds."""

    patience: float
    read_timeout: float
    deadline: float
    pause: float


@dataclass(frozen=True)
class _Expected:
    """What the caller knows of the file."""

    size: int | None
    sha256: str | None

    @property
    def pinned(self) -> bool:
        """Whether it is one certain version, so that the server need not be asked for a newer one."""
        return self.size is not None or self.sha256 is not None


class _Trouble(Exception):
    """A request that failed in a way that may pass; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


def cached(
    url: str,
    *,
    name: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
    offline: bool = False,
    patience: float = 120.0,
    progress: Progress | None = None,
    read_timeout: float = 30.0,
    deadline: float = DEADLINE,
    pause: float = 0.5,
) -> Path:
    """The file at ``url``, from the cache, fetched first where it is not there whole.

    ``url`` is an http(s), gs:// or tfhub.dev address; credentials in it go to its own host only. The file keeps the
    last part of the URL as its name, or gets ``name``. With ``size`` (bytes) or ``sha256`` (hexadecimal) given, a file
    in the cache that has these is used without asking the server; without, the server is asked whether it has a newer
    version, and the cached one serves where it cannot be asked. ``offline`` (or ``$BIT_CONVERT_OFFLINE``) forbids all
    requests. ``read_timeout``, ``deadline`` for the whole and ``pause`` before the second request are in seconds.

    Raises HubError where the server refuses or cannot be reached, or nothing new arrives for ``patience`` seconds (what
    has arrived is kept, and the next call goes on with it); CheckpointError where what arrived is not the file that
    was expected (nothing of it is kept); UsageError for a URL or an environment that cannot work, or a full disk.
    """
    address, credentials = _without_credentials(fetchable(url))
    slot = Slot(address, _file_name(name or urlsplit(address).path))
    expected = _Expected(size, sha256.lower() if sha256 else None)
    offline = offline or os.environ.get("BIT_CONVERT_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    if found := _usable(slot, expected, offline):
        return found
    if offline:
        raise HubError(f"{shown(url)}: not in the cache ({slot.folder.parent}), and offline. Run it once without.")
    limits = _Limits(patience, read_timeout, deadline, pause)
    with slot.locked():
        # Another process may have fetched it while this one waited.
        if found := _usable(slot, expected, offline):
            return found
        with _client(credentials, limits) as client:
            if (whole := slot.whole()) and not expected.pinned and _is_current(client, address, whole[1]):
                return whole[0]
            return _Download(address, slot, expected, limits, client, progress).run()


def fetchable(url: str) -> str:
    """The http(s) address of a file that is named as ``gs://bucket/path``, on tfhub.dev, or as http(s) already.

    A module of tfhub.dev is a .tar.gz (tensorflow.org/hub/hosting). Raises UsageError for any other scheme.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError as error:
        raise UsageError("not a well-formed URL to fetch a file from. Check it.") from error
    if parts.scheme == "gs" and parts.netloc and parts.path.strip("/"):
        return f"{BUCKETS}/{parts.netloc}{quote(unquote(parts.path))}"
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{shown(url)}: not an address to fetch a file from. Give an https:// or gs:// URL.")
    if host == "tfhub.dev" and "tf-hub-format" not in parts.query:
        return urlunsplit(parts._replace(query="tf-hub-format=compressed"))
    return url


def shown(url: str) -> str:
    """The URL as it may be printed: without the credentials that its host part or its query may hold."""
    return printable(url)


class _Download:
    """The requests that it takes to make one partial file whole."""

    def __init__(
        self,
        url: str,
        slot: Slot,
        expected: _Expected,
        limits: _Limits,
        client: httpx.Client,
        progress: Progress | None,
    ) -> None:
        self._url = url
        self._slot = slot
        self._expected = expected
        self._limits = limits
        self._client = client
        self._progress = progress or (lambda done, total: None)
        self._begun = self._advanced = time.monotonic()
        self._furthest = 0
        self._failures = 0
        self._versions = 0
        self._answered = False
        self._pieced = False
        """Whether the partial file was made of more than one answer."""

    def run(self) -> Path:
        try:
            for _ in range(2):
                version = self._arrived()
                digest, fault = self._inspect(version)
                if fault is None:
                    return self._slot.finish(version, digest)
                self._slot.drop()
                if not self._pieced:
                    break
                self._furthest = 0  # perhaps the pieces did not fit: once more from the beginning
            raise CheckpointError(f"{shown(self._url)}: {fault}\nNothing was kept.")
        except OSError as error:
            raise self._slot.unusable(error) from error

    def _arrived(self) -> Version:
        """Asks until the partial file is as long as its version says, and returns that."""
        while True:
            try:
                return self._request()
            except _Trouble as trouble:
                self._pause(trouble)

    def _request(self) -> Version:
        """One request and its answer, appended to the partial file; raises _Trouble if that is not yet whole."""
        held, done = self._slot.partial_version(), self._slot.done
        if held and done and done == held.total:
            self._pieced = True
            return held
        headers = {"Accept-Encoding": "identity"}  # else a server may send other bytes than the file's
        if held and done and held.validator:
            headers |= {"Range": f"bytes={done}-", "If-Range": held.validator}
        with self._troubles(), self._client.stream("GET", self._url, headers=headers) as response:
            self._answered = True
            self._refuse(response)
            if response.status_code == 200:
                version = self._begin(held, response)
            elif held and "Range" in headers and (continued := _continued(response, held, done)):
                version, self._pieced = continued, True
            else:
                self._discard()
                raise _Trouble("the server answered with a part that does not fit")
            self._require_room(version)
            self._save(response, version)
        if version.total is not None and self._slot.done < version.total:
            raise _Trouble(f"the answer ended after {self._slot.done} of {version.total} bytes")
        return version

    def _begin(self, held: Version | None, response: httpx.Response) -> Version:
        """A whole file is coming: makes sure of what can be told beforehand, and empties the partial file."""
        version = _version(response)
        if held and held != version:
            self._discard()
        self._slot.drop()
        total, size = version.total, self._expected.size
        if size is not None and total is not None and size != total:
            raise CheckpointError(
                f"{shown(self._url)}: the server has {total} bytes, not the {size} expected: another file, or a "
                "web page.\nNothing was kept. Check the URL."
            )
        if total is None and "Transfer-Encoding" not in response.headers and not self._provable:
            raise HubError(f"{shown(self._url)}: the server does not say how long the file is. Fetch it by hand.")
        self._slot.start(version)
        self._pieced = False
        return version

    @property
    def _provable(self) -> bool:
        """Whether the checks would notice a file that was cut short."""
        return self._expected.pinned or self._slot.name.endswith(".npz")

    def _require_room(self, version: Version) -> None:
        free = shutil.disk_usage(self._slot.folder).free
        if version.total is not None and version.total - self._slot.done > free:
            raise UsageError(
                f"{self._slot.folder.parent}: {version.total / 1e6:.0f} MB do not fit on the disk: {free / 1e6:.0f} MB "
                f"are free. Make room, or set {VARIABLE} to another folder."
            )

    def _save(self, response: httpx.Response, version: Version) -> None:
        done = self._slot.done
        most = version.total if version.total is not None else self._expected.size
        with self._slot.partial.open("ab") as file:
            self._progress(done, version.total)
            # Without a chunk size: httpx would hold back, and lose, the last bytes before a cut.
            for data in response.iter_raw():
                file.write(data)
                done += len(data)
                if most is not None and done > most:
                    self._slot.drop()
                    raise CheckpointError(f"{shown(self._url)}: more than the {most} bytes expected. Check the URL.")
                if done > self._furthest:
                    self._furthest, self._advanced, self._failures = done, time.monotonic(), 0
                self._progress(done, version.total)
                self._heed_deadline()

    def _discard(self) -> None:
        """The partial file turned out to be of another version than the server's."""
        self._slot.drop()
        self._furthest = 0
        self._versions += 1
        if self._versions > MAX_VERSIONS:
            raise HubError(f"{shown(self._url)}: the server keeps answering with another version. Try again later.")

    def _refuse(self, response: httpx.Response) -> None:
        """Raises what a status other than success means."""
        status = response.status_code
        schemes = [answer.url.scheme for answer in (*response.history, response)]
        if "https" in schemes and schemes[-1] == "http":
            raise HubError(
                f"{shown(self._url)}: leads from https to unprotected http. Fetch it by hand if you trust it."
            )
        if status in (200, 206):
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise HubError(f"{shown(self._url)}: the server sends the file in another encoding. Fetch it by hand.")
            return
        what = f"{status} {response.reason_phrase}".strip()
        if status == 416:
            self._discard()
            raise _Trouble(what)
        if status in PASSING:
            raise _Trouble(what, _retry_after(response))
        raise HubError(f"{shown(self._url)}: the server answered {what}. {_remedy(status, self._url)}")

    def _pause(self, trouble: _Trouble) -> None:
        """Waits before the next request; raises HubError where that would be beyond patience or deadline."""
        growing = min(LONGEST_PAUSE, self._limits.pause * 2 ** min(self._failures, MAX_DOUBLINGS))
        wait = max(growing * random.uniform(0.5, 1.0), trouble.wait)
        self._failures += 1
        patience = self._limits.patience * (1.0 if self._answered else UNREACHED)
        if time.monotonic() + wait > self._advanced + patience:
            asked = f", and asks to wait {trouble.wait:.0f} s" if trouble.wait else ""
            raise HubError(
                f"{shown(self._url)}: gave up: {trouble}{asked}. {self._kept()}\n"
                "Check the network (and a proxy: HTTPS_PROXY), and run it again."
            ) from trouble
        time.sleep(wait)
        self._heed_deadline()

    def _heed_deadline(self) -> None:
        if time.monotonic() > self._begun + self._limits.deadline:
            raise HubError(
                f"{shown(self._url)}: not done after {self._limits.deadline:.0f} s. {self._kept()} "
                "Run it again to go on."
            )

    def _kept(self) -> str:
        done = self._slot.done
        return f"The {done / 1e6:.1f} MB that arrived are kept." if done else "Nothing has arrived."

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Turns what httpx raises into a _Trouble, or into the error that no second try would mend."""
        import httpx

        try:
            yield
        except httpx.InvalidURL as error:
            raise UsageError(f"{shown(self._url)}: not a well-formed URL. Check it.") from error
        except httpx.UnsupportedProtocol as error:
            raise HubError(f"{shown(self._url)}: leads to an address that is not http(s). Check the URL.") from error
        except httpx.TooManyRedirects as error:
            raise HubError(f"{shown(self._url)}: it redirects without end. Check the URL.") from error
        except httpx.TransportError as error:
            if _is_certificate(error):
                raise HubError(
                    f"{shown(self._url)}: the server's certificate is not trusted ({_reason(error)}).\n"
                    "Behind a company's proxy, name its CA bundle in SSL_CERT_FILE."
                ) from error
            raise _Trouble(_reason(error)) from error

    def _inspect(self, version: Version) -> tuple[str, str | None]:
        """The sha256 of the file that arrived, and what is wrong with it, if anything."""
        path, size = self._slot.partial, self._slot.done
        digest = sha256_of(path)
        with path.open("rb") as file:
            head = file.read(512).lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html")) and not self._slot.name.endswith((".html", ".htm")):
            return digest, "a web page arrived instead of the file. Check the URL, and whether it needs a sign-in."
        if self._expected.size not in (None, size):
            return digest, f"{size} bytes arrived, not the {self._expected.size} expected. Check the URL."
        if self._expected.sha256 not in (None, digest):
            return digest, f"its sha256 is {digest}, not the {self._expected.sha256} expected. Check the URL."
        if version.md5 and version.md5 != _md5(path):
            return digest, "the bytes that arrived are not the server's (their MD5 differs). Run it again."
        if self._slot.name.endswith(".npz") and not is_whole_zip(path):
            return digest, "no whole .npz file arrived (a zip archive with its directory). Check the URL."
        return digest, None


def _usable(slot: Slot, expected: _Expected, offline: bool) -> Path | None:
    """The file in the cache, where it is the right one beyond asking."""
    whole = slot.whole()
    if whole and whole[1].fits(expected.size, expected.sha256) and (offline or expected.pinned):
        return whole[0]
    return None


def _is_current(client: httpx.Client, url: str, entry: Entry) -> bool:
    """Whether the server still has this version; said to be so where it cannot be asked."""
    import httpx

    headers = {"Accept-Encoding": "identity"}
    if entry.etag:
        headers["If-None-Match"] = entry.etag
    elif entry.modified:
        headers["If-Modified-Since"] = entry.modified
    else:
        return False
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.is_success:
                same = response.headers.get("ETag"), response.headers.get("Last-Modified")
                return same == (entry.etag, entry.modified)
            if response.status_code != 304:
                LOG.warning("%s: answered %d; the file in the cache is used.", shown(url), response.status_code)
    except httpx.HTTPError as error:
        LOG.warning("%s: could not be asked (%s); the file in the cache is used.", shown(url), _reason(error))
    return True


def _client(credentials: tuple[str, str] | None, limits: _Limits) -> httpx.Client:
    """A client that takes proxies and CA bundles from the environment, and drops credentials when led elsewhere."""
    import httpx

    try:
        return httpx.Client(
            auth=credentials,
            follow_redirects=True,
            timeout=httpx.Timeout(limits.read_timeout, connect=min(CONNECT_TIMEOUT, limits.read_timeout)),
            verify=_trust(),
            headers={"User-Agent": "bit-convert"},
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        # Not the error's text: it may quote a proxy's password.
        raise UsageError(
            f"the environment's proxy or CA bundle cannot be used ({type(error).__name__}). "
            "Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and REQUESTS_CA_BUNDLE."
        ) from error


def _trust() -> ssl.SSLContext | bool:
    """httpx heeds SSL_CERT_FILE and SSL_CERT_DIR itself; the names that requests and curl use are heeded here."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not bundle or os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return True
    if Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


def _without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL without user and password, and these."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(name), unquote(password))


def _file_name(path: str) -> str:
    """The last part of a path as a plain file name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(path).rstrip("/").rpartition("/")[2])
    return name.lstrip(".")[-100:] or "download"


def _version(response: httpx.Response) -> Version:
    """What a 200 answer says of the file it brings."""
    headers = response.headers
    length, etag, modified = (headers.get(name) for name in ("Content-Length", "ETag", "Last-Modified"))
    return Version(
        etag=etag,
        modified=modified,
        validator=etag if etag and not etag.startswith("W/") else _strong_date(modified, headers.get("Date"), etag),
        total=int(length) if length and length.isdecimal() else None,
        md5=_stored_md5(headers.get("x-goog-hash", "")),
    )


def _strong_date(modified: str | None, now: str | None, etag: str | None) -> str | None:
    """Last-Modified, where it tells versions apart and the server gives no ETag."""
    if etag or not modified or not now:
        return None
    then, answered = _date(modified), _date(now)
    return modified if then and answered and answered - then >= SAME_SECOND else None


def _stored_md5(hashes: str) -> str | None:
    """The MD5 in Google's ``x-goog-hash: crc32c=…,md5=…`` (cloud.google.com/storage/docs/xml-api/reference-headers)."""
    for item in hashes.split(","):
        kind, _, value = item.strip().partition("=")
        if kind == "md5":
            try:
                return base64.b64decode(value, validate=True).hex()
            except (binascii.Error, ValueError):
                return None
    return None


def _continued(response: httpx.Response, held: Version, done: int) -> Version | None:
    """The held version, if a 206 answer goes on where the partial file stops and is of the same version."""
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != done:
        return None
    total = None if match[3] == "*" else int(match[3])
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    if (
        total not in (None, held.total or total)
        or etag not in (None, held.etag)
        or modified not in (None, held.modified)
    ):
        return None
    return replace(held, total=held.total or total)


def _retry_after(response: httpx.Response) -> float:
    """The seconds that the server asks to wait: a number, or the time until a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    date = _date(value)
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date else 0.0


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _remedy(status: int, url: str) -> str:
    if status in (401, 403):
        return "It needs a sign-in, or is not public: fetch it by hand and give the file with --checkpoint."
    if status in (404, 410):
        return "Check the URL, or fetch the file elsewhere and give it with --checkpoint."
    if status == 407:
        return "The proxy asks for a sign-in: put user and password into HTTPS_PROXY."
    return "Check the URL."


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
