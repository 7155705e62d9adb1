"""Models of Kaggle, fetched by its own client, ``kagglehub``, into that client's cache.

    handle or page → ``handle_of()`` → handle → ``fetch()`` → a process of ``main()`` → folder on this machine

kagglehub runs in a process of its own: it writes to stdout, and neither the rules by which tarfile unpacks what it
downloads nor the names of files that it takes from a server can be changed but for a whole process.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from converters.download.retry import TRANSIENT
from converters.errors import HubError, Scope, UsageError
from converters.redaction import one_line

SCHEME, HOSTS = "kaggle", ("kaggle.com", "www.kaggle.com")
PART = r"[\w.-]*\w[\w.-]*"
HANDLE = re.compile(
    rf"({PART})/({PART})/(?:frameworks/)?({PART})/(?:variations/)?({PART})(?:/(?:versions/)?([1-9]\d*))?", re.ASCII
)
"""A model's address, as kagglehub has it and as its page has had it."""
FORM = "kaggle://OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"
LOG = logging.getLogger(__name__)


def handle_of(address: str) -> str | None:
    """The model that ``kaggle://HANDLE`` or a page of kaggle.com names; None for an address of another kind.

    That is ``owner/model/framework/variation``, and a version where the address has one. Raises UsageError for an
    address of Kaggle's that is no model's.
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
    owner, model, framework, variation, version = found.groups()
    framework = framework[0].lower() + framework[1:]  # pages write TensorFlow2, handles tensorFlow2
    return "/".join(filter(None, (owner, model, framework, variation, version)))


def fetch(handle: str, *, offline: bool = False) -> Path:
    """The model's folder in kagglehub's cache, downloaded if need be; ``offline`` forbids all requests.

    Public models need no sign-in. One that is in the cache serves where Kaggle cannot be asked. Raises HubError where
    it cannot be had, UsageError without kagglehub.
    """
    if importlib.util.find_spec("kagglehub") is None:
        raise UsageError("Models of Kaggle are fetched with kagglehub: pip install 'bit-convert[kaggle]'")
    where, held = f"{SCHEME}://{handle}", _cached(handle)
    if offline:
        if held is None:
            raise HubError(f"{where}: not in kagglehub's cache ({_folder(handle)}), and offline. Run it once without.")
        return held
    from converters.download.cache import Slot

    with Slot.of(where.removesuffix(f"/{_version(handle)}")).locked():  # kagglehub has no locks
        answer = _downloaded(handle)
    if "folder" in answer:
        return Path(answer["folder"])
    if held is not None and answer["passes"]:
        LOG.warning("%s: Kaggle could not be asked (%s); the cached model is used.", where, answer["reason"])
        return held
    scope = Scope.PASSING if answer["passes"] else Scope.MODEL
    raise HubError(f"{where}: cannot be fetched: {answer['reason']}.\n{answer['remedy']}", scope)


def _downloaded(handle: str) -> dict[str, Any]:
    """Returns what ``main`` writes in its own process: the ``folder``, or ``reason``, ``remedy`` and ``passes``."""
    command = [sys.executable, "-P", "-m", __name__, handle]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return dict(answer)
    except (ValueError, IndexError):
        reason = f"kagglehub ended with status {done.returncode}"
        return {"reason": reason, "remedy": "Fetch the files by hand from kaggle.com.", "passes": False}


def main() -> None:
    """Downloads the model that the command line names; writes to stdout, in its last line, what became of it."""
    (handle,) = sys.argv[1:]
    logging.disable()
    try:
        import kagglehub

        _check_names(kagglehub.http_resolver)
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
        answer: dict[str, Any] = {"folder": kagglehub.model_download(handle)}
    except Exception as error:  # the client, its HTTP library, tarfile and the system each have their own
        if not _is_network(error):
            # An archive that arrived whole but is defective would be taken for good, and not be fetched again.
            for archive in _folder(handle).glob(f"{_version(handle) or '*'}.archive"):
                archive.unlink(missing_ok=True)
        answer = _why(error)
    print("\n" + json.dumps(answer), flush=True)


def _folder(handle: str) -> Path:
    """Returns kagglehub's folder of a model's versions: each a folder, and a mark beside it once it is whole."""
    from kagglehub.config import get_cache_folder

    return Path(get_cache_folder(), "models", *handle.split("/")[:4])


def _version(handle: str) -> str:
    """The version that a handle ends in; empty where the newest is meant."""
    return "".join(handle.split("/")[4:])


def _cached(handle: str) -> Path | None:
    """The folder of this version, or of the newest that is there whole."""
    folder = _folder(handle)
    versions = [mark.stem for mark in folder.glob("*.complete") if mark.stem.isdecimal()]
    version = _version(handle) or max(versions, key=int, default="")
    return folder / version if version in versions and (folder / version).is_dir() else None


def _is_network(error: Exception) -> bool:
    """Whether the HTTP library raised it: what has arrived is then whole as far as it goes."""
    from requests import RequestException

    return isinstance(error, RequestException)


def _why(error: Exception) -> dict[str, Any]:
    """Returns what went wrong, what to do, and whether it may pass."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason, passes = f"Kaggle answers {status}", status in TRANSIENT
    if status in (401, 403):
        remedy = (
            "Public models need no sign-in: check the handle, or sign in (kaggle.com/settings) where it is private."
        )
    elif status in (404, 410):
        remedy = f"Check the handle: {FORM}."
    elif status is not None:
        remedy = "Try again later."
    else:
        reason, passes = one_line(error, 160) or type(error).__name__, _is_network(error)
        remedy = "Check the network and run it again; what has arrived is used."
        if isinstance(error, OSError) and error.errno and not isinstance(error, tarfile.TarError):
            remedy = "Check the disk that KAGGLEHUB_CACHE, or the home directory, is on."
        elif not passes:
            reason = f"what arrived is damaged or unsafe: {reason}"
            remedy = "Run it again, or fetch the files by hand from kaggle.com."
    return {"reason": reason, "remedy": remedy, "passes": passes}


def _check_names(resolver: Any) -> None:
    """From now on kagglehub, which writes files to wherever a server's list of them says, fetches none from outside of
    the model's folder."""
    fetch_all = resolver.thread_map

    def checked(fetch_one: Any, names: Any, *arguments: Any, **options: Any) -> Any:
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
                raise ValueError(f"its file {name[:80]!r} leads out of the model's folder")
        return fetch_all(fetch_one, names, *arguments, **options)

    resolver.thread_map = checked


if __name__ == "__main__":
    main()
