"""Models of Kaggle, fetched by its own client, ``kagglehub``, into that client's cache.

handle or page → ``model()`` → handle → ``fetch()`` → folder on this machine
"""

from __future__ import annotations

import io
import logging
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from converters.errors import HubError, UsageError
from converters.redaction import one_line

SCHEME, HOSTS = "kaggle", ("kaggle.com", "www.kaggle.com")
PART = r"[\w.-]*\w[\w.-]*"
HANDLE = re.compile(
    rf"(?P<owner>{PART})/(?P<model>{PART})/(?:frameworks/)?(?P<framework>{PART})/(?:variations/)?(?P<variation>{PART})"
    r"(?:/(?:versions/)?(?P<version>[1-9]\d*))?",
    re.ASCII,
)
"""A model's address, as kagglehub has it and as its page has had it."""
FORM = "kaggle://OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"
SILENT = logging.CRITICAL + 1


@dataclass(frozen=True)
class Model:
    """A model of Kaggle; without a version, the newest."""

    owner: str
    model: str
    framework: str
    variation: str
    version: int | None

    def __str__(self) -> str:
        return "/".join(
            [self.owner, self.model, self.framework, self.variation, *map(str, filter(None, [self.version]))]
        )


def model(address: str) -> Model | None:
    """The model that ``kaggle://HANDLE`` or a page of kaggle.com names; None for an address of another kind.

    Raises UsageError for one of Kaggle's that is no model's.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme == SCHEME:
        path = address.partition("://")[2]
    elif parts.scheme in ("http", "https") and host in HOSTS:
        path = parts.path.strip("/")
        path = path.removeprefix("models/") if path.startswith("models/") else ""
    else:
        return None
    found = HANDLE.fullmatch(path.strip("/"))
    if not found:
        raise UsageError(f"{SCHEME}://{path[:120]}: not a model of Kaggle. Write {FORM}.")
    framework, version = found["framework"], found["version"]
    return Model(
        found["owner"],
        found["model"],
        framework[0].lower() + framework[1:],  # pages write TensorFlow2, handles tensorFlow2
        found["variation"],
        int(version) if version else None,
    )


def fetch(wanted: Model, *, offline: bool = False) -> Path:
    """The model's folder in kagglehub's cache, downloaded if need be; ``offline`` forbids all requests.

    Public models need no sign-in. Raises HubError where it cannot be had, UsageError without kagglehub.
    """
    kagglehub = _client()
    if offline:
        return _cached(kagglehub, wanted)
    with _quiet(), _names_checked(kagglehub):
        try:
            return Path(kagglehub.model_download(str(wanted)))
        except Exception as error:  # the client, its HTTP library, tarfile and the system each have their own
            if not _is_network(error):
                _remove_archive(kagglehub, wanted)
            reason, remedy = _why(error)
            raise HubError(f"{SCHEME}://{wanted}: cannot be fetched: {reason}.\n{remedy}") from error


def _client() -> Any:
    try:
        import kagglehub
    except ImportError as error:
        raise UsageError("Models of Kaggle are fetched with kagglehub: pip install 'bit-convert[kaggle]'") from error
    return kagglehub


def _folder(kagglehub: Any, wanted: Model) -> Path:
    """Where kagglehub keeps the versions of a model: each a folder, and a mark beside it once it is whole."""
    return Path(
        kagglehub.config.get_cache_folder(), "models", wanted.owner, wanted.model, wanted.framework, wanted.variation
    )


def _cached(kagglehub: Any, wanted: Model) -> Path:
    folder = _folder(kagglehub, wanted)
    versions = [int(mark.stem) for mark in folder.glob("*.complete") if mark.stem.isdecimal()]
    version = wanted.version or max(versions, default=0)
    if version not in versions or not (folder / str(version)).is_dir():
        raise HubError(f"{SCHEME}://{wanted}: not in kagglehub's cache ({folder}), and offline. Run it once without.")
    return folder / str(version)


def _is_network(error: Exception) -> bool:
    """Whether the HTTP library raised it: what has arrived is then whole as far as it goes."""
    from requests import RequestException

    return isinstance(error, RequestException)


def _remove_archive(kagglehub: Any, wanted: Model) -> None:
    """kagglehub takes an archive that arrived whole but is defective for good, and would not fetch it again."""
    for archive in _folder(kagglehub, wanted).glob(f"{wanted.version or '*'}.archive"):
        archive.unlink(missing_ok=True)


def _why(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"Kaggle answers {status}",
            "Public models need no sign-in: check the handle, or sign in (kaggle.com/settings) where it is private.",
        )
    if status in (404, 410):
        return f"Kaggle answers {status}", f"Check the handle: {FORM}."
    if status is not None:
        return f"Kaggle answers {status}", "Try again later."
    text = one_line(error, 160) or type(error).__name__
    if _is_network(error):
        return text, "Check the network and run it again; what has arrived is used."
    if isinstance(error, OSError) and error.errno and not isinstance(error, tarfile.TarError):
        return text, "Check the disk that KAGGLEHUB_CACHE, or the home directory, is on."
    return f"what arrived is damaged or unsafe: {text}", "Run it again, or fetch the files by hand from kaggle.com."


@contextmanager
def _names_checked(kagglehub: Any) -> Iterator[None]:
    """Inside, kagglehub, which writes files to wherever a server's list of them says, fetches none from outside of the
    model's folder."""
    home = kagglehub.http_resolver
    fetch_all = getattr(home, "thread_map", None)
    if fetch_all is None:  # a version that does it otherwise
        yield
        return

    def checked(fetch_one: Any, names: Any, *arguments: Any, **options: Any) -> Any:
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
                raise ValueError(f"its file {name[:80]!r} leads out of the model's folder")
        return fetch_all(fetch_one, names, *arguments, **options)

    home.thread_map = checked
    try:
        yield
    finally:
        home.thread_map = fetch_all


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, kagglehub writes neither its log (to stdout) nor bars (to stderr), and unpacks archives by safe rules."""
    logger = logging.getLogger("kagglehub")
    level, unsafe = logger.level, tarfile.TarFile.extraction_filter
    safe = getattr(tarfile, "data_filter", None)
    try:
        logger.setLevel(SILENT)
        tarfile.TarFile.extraction_filter = safe and staticmethod(safe)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tarfile.TarFile.extraction_filter = unsafe and staticmethod(unsafe)
