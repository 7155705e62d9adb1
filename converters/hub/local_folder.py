"""Publishes into a folder in the layout of the Hub cache, so that ``from_pretrained(repo_id, cache_dir=…)`` finds it.

    folder + passed report → copies under their digests → a snapshot → refs

    HUB/.locks/models--NS--NAME/bit-convert.lock    one writer a repository
    HUB/models--NS--NAME/
        blobs/DIGEST                                git's sha1 of a small file, sha256 of a large one
        snapshots/COMMIT/FILE → ../../blobs/DIGEST
        refs/main                                   COMMIT
        .bit-convert/                               what is not finished; the next run removes it

Everything is made under ``.bit-convert``, flushed to disk and renamed into its place: first blobs, then the snapshot,
the refs last. A process killed at any moment leaves the old state or the new one. A commit is named by a digest of its
files, so the same content is the same commit and a repeated run ends where the first one would have.
The layout is described in huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from filecmp import cmp
from pathlib import Path, PurePosixPath

from converters.digests import known_sha256, private_states_of, remember_made
from converters.errors import HubError, ParityError, UsageError
from converters.files import CARD, PARITY, fsync, sha256
from converters.hub.guard import (
    LARGE_SUFFIXES,
    MAIN,
    Publication,
    is_signed,
    our_stale_files,
    published_card,
    refuse_repository,
    same_result,
    verified_files,
)
from converters.options import PublishOptions
from verify import Report

COMMIT = re.compile(r"[0-9a-f]{40}")
LARGE = 10 << 20
"""Bytes from which on the Hub keeps any file in its large-file storage."""
MAX_TEXT = 16 << 20
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_REF = re.compile(r"(?!-)[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*(/[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*)*")


def publish(
    folder: Path, report: Report, name: str, options: PublishOptions, *, sign_key: Path | None = None
) -> Publication:
    """Puts the verified files of ``folder``, a model called ``name``, into the folder hub of ``options``; nothing is
    asked of a network.

    Other files of the repository stay, those of an earlier result of ours that are no longer part of it go. A branch
    ``revision`` that is missing begins as main. Where this result is already there nothing is committed. A ``tag`` is
    put on the commit and never moved. A signature by ``sign_key`` that is there and holds is kept. With ``refresh``,
    what another version published is not this result. Two writers take turns.

    Raises UsageError for a name that cannot be, ParityError where the report did not pass or a file is not the one it
    was verified as, HubError where the hub cannot be written or locked, or has the tag on another commit.
    """
    assert options.hub is not None, "else it is published to the Hub"
    repo_id = options.repository(name)
    refuse_repository(repo_id)
    _refuse_refs(options)
    files = verified_files(folder, report)
    try:
        hub = options.hub.expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(
            f"{options.hub}: there is no home directory. Give the folder of --hub by its whole path."
        ) from error
    try:
        with _opened(hub, repo_id) as repository:
            return repository.publish(files, report, repo_id, options, sign_key)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise HubError(f"{hub}: the folder hub cannot be written: {reason}. Mend that, or choose another.") from error


class _Repository:
    """One repository of the hub, locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unfinished = path / ".bit-convert"

    def publish(
        self,
        files: Mapping[str, Path],
        report: Report,
        repo_id: str,
        options: PublishOptions,
        sign_key: Path | None,
    ) -> Publication:
        revision, tag = options.revision or MAIN, options.tag
        parent = self._commit_of(revision) or self._commit_of(MAIN)
        is_there = parent is not None and self._holds(parent, report, options.refresh)
        if parent and is_there and is_signed(files, self._files(parent), sign_key):
            commit, changed = parent, False
        else:
            card = self._unfinished / "card" / CARD
            card.parent.mkdir(parents=True, exist_ok=True)
            card.write_bytes(published_card(files, repo_id))
            commit, changed = self._commit({**files, CARD: card}, report, parent, tag), True
        self._refuse_tag(tag, commit)
        for name in filter(None, (revision, tag)):
            if self._ref(name) != commit:
                self._point(name, commit)
        return Publication(repo_id, revision, commit, self._snapshot(commit).as_uri(), changed)

    def clean(self) -> None:
        """Removes what a killed run left unfinished."""
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _commit(self, files: Mapping[str, Path], report: Report, parent: str | None, tag: str | None) -> str:
        """Makes the snapshot of ``files`` and of what stays of ``parent``, and returns its name."""
        blobs = {name: self._store(name, path, report.files.get(name)) for name, path in files.items()}
        others = self._others(parent, files)
        commit = _commit_name({n: blob.name for n, blob in blobs.items()} | {n: _held_as(p) for n, p in others.items()})
        self._refuse_tag(tag, commit)
        made = self._unfinished / commit  # as deep in the repository as its place, so that links lead to the same
        for name, blob in blobs.items():
            _put(blob, made / name, Path("..", "..", "blobs", blob.name))
        for name, path in others.items():
            _put(path, made / name, path.readlink() if path.is_symlink() else None)
        for path in [*made.rglob("*"), made]:
            if not path.is_symlink():
                fsync(path)
        states = private_states_of(made, report.files)
        self._install(made, self._snapshot(commit), {*blobs, *others})
        remember_made(self._snapshot(commit), report.files, states)
        return commit

    def _install(self, made: Path, place: Path, names: AbstractSet[str]) -> None:
        """Puts a snapshot in its place, unless it is there already, whole: then other refs may be on it."""
        if place.is_dir():
            if all((place / name).is_file() and cmp(made / name, place / name, shallow=False) for name in names):
                return
            place.rename(self._unfinished / "damaged")
        made.rename(place)
        fsync(place.parent)

    def _store(self, name: str, path: Path, digest: str | None) -> Path:
        """The blob of a file, copied where it is not yet there; ``digest`` is the sha256 that was verified, if any."""
        if digest and _is_large(path):
            held = self.path / "blobs" / digest
            if held.is_file() and sha256(held) == digest:
                return held
        copy = self._unfinished / "copies" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        found = sha256(copy)
        if digest not in (None, found):
            raise ParityError(f"{path}: not published: it changed after it was verified. Convert again.")
        fsync(copy)
        blob = self.path / "blobs" / _blob_name(copy, found)
        copy.replace(blob)
        fsync(blob.parent)
        return blob

    def _others(self, parent: str | None, files: Mapping[str, Path]) -> dict[str, Path]:
        """The files of ``parent`` that are not ours: those that this commit neither replaces nor leaves behind."""
        if parent is None:
            return {}
        present = self._files(parent)
        gone = {*files, *our_stale_files(files, self._parity(parent), present)}
        return {name: path for name, path in present.items() if name not in gone}

    def _files(self, commit: str) -> dict[str, Path]:
        """Name → path of what a commit holds."""
        snapshot = self._snapshot(commit)
        return {p.relative_to(snapshot).as_posix(): p for p in sorted(snapshot.rglob("*")) if p.is_file()}

    def _holds(self, commit: str, report: Report, refresh: bool) -> bool:
        """Whether the commit is of this result: its parity.json says so, and its files have those digests."""
        if not same_result(report, self._parity(commit), refresh):
            return False
        paths = {self._snapshot(commit) / name: digest for name, digest in report.files.items()}
        return all(path.is_file() and known_sha256(path) == digest for path, digest in paths.items())

    def _parity(self, commit: str) -> str | None:
        try:
            with (self._snapshot(commit) / PARITY).open("rb") as file:
                return file.read(MAX_TEXT).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def _ref(self, name: str) -> str | None:
        """Returns the commit of a branch or tag; None without such a ref."""
        try:
            return (self.path / "refs" / name).read_text().strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
            return None

    def _commit_of(self, name: str) -> str | None:
        """The commit that a branch is on; None without one, or where its snapshot is missing."""
        commit = self._ref(name)
        return commit if commit and COMMIT.fullmatch(commit) and self._snapshot(commit).is_dir() else None

    def _refuse_tag(self, tag: str | None, commit: str) -> None:
        there = self._ref(tag) if tag else None
        if there is not None and there != commit:
            raise HubError(
                f"{self.path}: the tag {tag} is on commit {there[:12]} and is never moved. "
                f"Choose another --tag, or delete refs/{tag} first."
            )

    def _point(self, name: str, commit: str) -> None:
        """Moves a ref, in one step. It is written elsewhere first: whatever lies in refs is taken for one."""
        made, place = self._unfinished / "ref", self.path / "refs" / name
        made.parent.mkdir(exist_ok=True)
        made.write_text(commit)
        fsync(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        made.replace(place)
        fsync(place.parent)

    def _snapshot(self, commit: str) -> Path:
        return self.path / "snapshots" / commit


@contextmanager
def _opened(hub: Path, repo_id: str) -> Iterator[_Repository]:
    """The repository, made where it is missing, while no other process of ours writes to it."""
    name = "--".join(["models", *repo_id.split("/")])
    locks = hub / ".locks" / name
    locks.mkdir(parents=True, exist_ok=True)
    with _locked(locks / "bit-convert.lock", hub):
        if not (hub / name).exists():
            made = locks / "new"
            shutil.rmtree(made, ignore_errors=True)
            for part in ("blobs", "refs", "snapshots"):
                (made / part).mkdir(parents=True)
            made.rename(hub / name)  # a repository without its three folders would be a broken one
        repository = _Repository(hub / name)
        for part in ("blobs", "refs", "snapshots"):
            (repository.path / part).mkdir(exist_ok=True)
        repository.clean()
        try:
            yield repository
        finally:
            repository.clean()


def _locked(path: Path, hub: Path) -> AbstractContextManager[object]:
    from filelock import FileLock

    try:
        return FileLock(path).acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise HubError(
            f"{hub}: its file system has no locks, so two writers could not be told apart ({error.strerror}).\n"
            "Mount it with locks, or publish into a local folder and copy that."
        ) from error


def _refuse_refs(options: PublishOptions) -> None:
    revision, tag = options.revision or MAIN, options.tag
    for option, name in (("--revision", revision), ("--tag", tag)):
        if name is not None and (not _REF.fullmatch(name) or ".." in name or COMMIT.fullmatch(name)):
            raise UsageError(f"{name!r}: no name for a branch or tag. Choose another {option}.")
    if tag == revision:
        raise UsageError(f"{tag!r}: a tag and a branch of the same name. Choose another --tag.")


def _put(file: Path, place: Path, link: Path | None) -> None:
    """Makes ``place``, at a snapshot's depth, this link to ``file``; a copy where there is none, or are no links."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if link is not None:
        try:
            place.symlink_to(link)
            return
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
    shutil.copyfile(file, place)


def _commit_name(digests: Mapping[str, str]) -> str:
    """The name of the commit of these files: a sha1 of their names and digests, as 40 hexadecimal digits."""
    listing = "".join(f"{digests[name]} {name}\n" for name in sorted(digests))
    return hashlib.sha1(listing.encode()).hexdigest()


def _held_as(path: Path) -> str:
    """The name of the blob of a file in a snapshot."""
    return Path(os.readlink(path)).name if path.is_symlink() else _blob_name(path)


def _blob_name(path: Path, digest: str | None = None) -> str:
    """Returns the cache's name of a file: its sha256, ``digest`` if known, where it is large, otherwise git's sha1."""
    if _is_large(path):
        return digest or sha256(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(path: Path) -> bool:
    return PurePosixPath(path.name).suffix in LARGE_SUFFIXES or path.stat().st_size > LARGE
