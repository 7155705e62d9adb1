"""Repositories of the Hub, in huggingface_hub's own cache.

repository, revision → ``snapshot()`` → folder of its files; the one that is in the cache where the Hub cannot be asked
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from converters.download.addresses import endpoint
from converters.download.hub_client import guarded, guarded_bars, meaning, patience_with
from converters.download.retry import Pace, Refused
from converters.errors import CheckpointError, HubError, Scope
from converters.files import PARITY
from verify.protocols import Progress

WEIGHTS = ("*.safetensors", "*.bin", "*.npz", "*.h5")
"""The kinds of weights: files of the first kind that a repository has are fetched, beside its JSON."""
NEVER_LOADED = [
    *("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.tflite", "*.ot", "runs/*", "checkpoint-*/*"),
    *("*.csv", "*.parquet", "*.mp4", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.pdf"),
]
"""Files that are not fetched even with a whole repository: large ones that neither transformers nor timm opens."""
CHECK_NETWORK = "Check the network (a proxy: HTTPS_PROXY; another Hub: HF_ENDPOINT), and run it again."
CHECK_NAME = "Check the name, and `hf auth login` where it is private."
LOG = logging.getLogger(__name__)


def snapshot(repo_id: str, revision: str | None, *, offline: bool, whole: bool, progress: Progress) -> Path:
    """The folder of a repository's files, downloaded if need be: its JSON and one kind of weights, or with ``whole``
    every file that a loader could open.

    Raises HubError where it cannot be had, CheckpointError for a repository without weights.
    """
    return _asked(
        repo_id,
        offline,
        progress,
        download=lambda: _downloaded(repo_id, revision, whole),
        held=lambda: _held(repo_id, revision),
    )


def report_alone(repo_id: str, revision: str | None, *, offline: bool, progress: Progress) -> Path:
    """The folder of a repository's report, downloaded if need be; a repository without one gives a folder without one.

    Raises HubError where it cannot be had.
    """
    return _asked(
        repo_id,
        offline,
        progress,
        download=lambda: _fetched(repo_id, revision, allow_patterns=[PARITY]),
        held=lambda: _cached(repo_id, revision, [PARITY]),
    )


def _asked(
    repo_id: str, offline: bool, progress: Progress, *, download: Callable[[], Path], held: Callable[[], Path | None]
) -> Path:
    """Returns what ``download`` gives, tried as long as that may help; offline, and at last, what is ``held``."""
    if offline:
        if found := held():
            return found
        raise HubError(
            f"hf://{repo_id}: cannot be fetched: it is not in the Hub's cache, and offline. Run it once without."
        )
    progress("downloading", 0, 0)
    patience = patience_with(Pace())
    while True:
        try:
            with guarded(patience):
                return download()
        except Exception as error:  # the client, its HTTP library and the system each have their own
            answer = meaning(error)
        failed = f"hf://{repo_id}: cannot be fetched: {answer.problem.rstrip('.')}."
        if isinstance(answer, Refused):
            raise HubError(f"{failed}\n{CHECK_NAME}" if answer.status in (401, 403, 404) else failed)
        if found := held():
            LOG.warning("hf://%s: the Hub could not be asked (%s); the cached snapshot is used.", repo_id, answer)
            return found
        if not patience.pause(answer, lambda line: progress(line, 0, 0)):
            raise HubError(f"{failed}\n{CHECK_NETWORK}", Scope.PASSING)


def _downloaded(repo_id: str, revision: str | None, whole: bool) -> Path:
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint()).model_info(repo_id, revision=revision)
    names = [PurePosixPath(file.rfilename) for file in info.siblings or []]
    kind = next((pattern for pattern in WEIGHTS if any(name.match(pattern) for name in names)), None)
    if kind is None:
        raise CheckpointError(f"hf://{repo_id}: holds no {', '.join(WEIGHTS)}. Give a repository that has weights.")
    wanted: dict[str, Any] = {"ignore_patterns": NEVER_LOADED} if whole else {"allow_patterns": ["*.json", kind]}
    return _fetched(repo_id, revision, **wanted)


def _fetched(repo_id: str, revision: str | None, **wanted: Any) -> Path:
    from huggingface_hub import snapshot_download

    bars = guarded_bars()
    return Path(snapshot_download(repo_id, revision=revision, endpoint=endpoint(), tqdm_class=bars, **wanted))


def _held(repo_id: str, revision: str | None) -> Path | None:
    """Returns what was fetched before; None where it is not there whole."""
    for kind in WEIGHTS:  # a snapshot of some files is whole only by the patterns that they were chosen by
        folder = _cached(repo_id, revision, ["*.json", kind])
        if folder is None or any(folder.rglob(kind)):
            return folder
    return None


def _cached(repo_id: str, revision: str | None, patterns: list[str]) -> Path | None:
    """The folder of what was fetched before of such files; None where that is not there whole, or cannot be read."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=patterns))
    except Exception:  # the client has many
        return None
