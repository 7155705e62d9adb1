"""The places that checkpoints and folders come from: a path, a URL, a repository of the Hub, a variant's own file.

what was given, Variant → ``locate()`` → path, or an address → ``fetch()`` → path on this machine
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from converters.catalogue.variants import Variant, find_one, kaggle_handle, named
from converters.download import kaggle
from converters.download.addresses import endpoint, fetchable, is_offline, without_credentials
from converters.errors import CheckpointError, HubError, UsageError
from converters.redaction import printable, remember
from verify.protocols import Progress

if TYPE_CHECKING:
    from converters.download.cache import Slot

HUB = "hf://"
REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:(?:@|/tree/)(?P<revision>[\w./-]+))?")
SNAPSHOTS = re.compile(r"models--(?P<id>.+)")
"""A repository's folder in the Hub's cache: ``models--NAMESPACE--NAME``."""
MODULE_FILES = (
    "saved_model.pb",
    "tfhub_module.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)
"""A module that was published as a folder (google-research/big_transfer@140de6e, README.md)."""


def target_of(target: Path | str, offline: bool, progress: Progress) -> Path:
    """The folder to audit, of the Hub downloaded; a name of the catalogue is none, so a path of that name is meant.

    Raises UsageError where there is none, and as ``fetch`` does.
    """
    folder = fetch(locate(target, None), offline=offline, whole=True, progress=progress)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        if not folder.exists() and named(str(target)) is not None:
            what = "a released checkpoint, not a converted folder"
        raise UsageError(f"{target}: {what}. Give a converted folder, or hf://NAMESPACE/NAME.")
    return folder


def report_of(given: str, offline: bool, progress: Progress) -> Path:
    """The file or folder that a report is in; of a repository a folder with the report alone, downloaded if need be.

    Raises UsageError where there is none, HubError where a repository cannot be had.
    """
    repository = _repository(given)
    if repository is not None:
        from converters.download.snapshots import report_alone

        return report_alone(*repository, offline=is_offline(offline), progress=progress)
    if not Path(given).exists():
        raise UsageError(f"{given}: no such file or folder. Give a parity.json, a folder, or hf://NAMESPACE/NAME.")
    return Path(given)


def identity(target: Path | str, folder: Path) -> dict[str, str]:
    """The ``name`` of a target that lies in ``folder``, and the ``revision`` of a repository: no path of this machine.

    A folder of the Hub's cache, or of a folder hub, is the repository that it is a snapshot of.
    """
    *_, cached, kind, own = ("", "", *folder.resolve().parts)
    if kind == "snapshots" and (found := SNAPSHOTS.fullmatch(cached)):
        return {"name": found["id"].replace("--", "/", 1), "revision": own}
    return {"name": canonical(target) if isinstance(target, str) and "://" in target else own}


def checkpoint_of(against: Path | str, offline: bool, progress: Progress) -> tuple[Path, Variant | None]:
    """The checkpoint of a name of the catalogue, a path or a URL, and the variant of a name.

    As text, a variant's name wins over a path; its other spellings (a glob, the published file's path or URL) do not.
    Raises UsageError where it is neither, and as ``fetch`` does.
    """
    if isinstance(against, Path):
        return against, None
    variant = variant_of(against)
    place = locate(None if variant else against, variant)
    return fetch(place, size=variant.bytes if variant else None, offline=offline, progress=progress), variant


def variant_of(against: Path | str) -> Variant | None:
    """The variant that is meant; None for a path or an address. Raises UsageError for text that is none of these."""
    if isinstance(against, Path):
        return None
    variant = named(against)
    if variant is None and "://" not in against and not is_checkpoint(against):
        try:
            return find_one(against)
        except UsageError as error:
            raise UsageError(f"{against}: no such file; {error}") from None
    return variant


def is_checkpoint(path: str) -> bool:
    """Whether there is such a file or folder, or a TensorFlow checkpoint of this prefix."""
    return any(Path(candidate).exists() for candidate in (path, path + ".index"))


def locate(given: Path | str | None, variant: Variant | None) -> Path | str:
    """The path or address of what was given, or of the variant's own file. Raises UsageError for a defective one."""
    if given is not None:
        remember(given)
        return given if isinstance(given, str) and "://" in given else Path(given)
    assert variant is not None, "there is a checkpoint or a variant"
    variant.refuse_defect()
    place = variant.file or variant.url
    assert place is not None, "what is not embedded was published"
    return place


def fetch(
    place: Path | str, *, size: int | None = None, offline: bool = False, whole: bool = False, progress: Progress
) -> Path:
    """A path as it is; an address out of a cache, downloaded if need be.

    Of a repository come its JSON files and one kind of weights, or with ``whole`` every file that a loader could open.

    ``hf://NAMESPACE/NAME[@REVISION]``, or the same as a page of the Hub, is a repository; ``kaggle://HANDLE``, or a
    page of Kaggle's, a model there; an address that ends in a slash is a TF-Hub module's folder; any other is a file,
    of ``size`` bytes where that is known. A module of tfhub.dev that is not to be had there is fetched from Kaggle.
    Raises HubError where it cannot be had, CheckpointError for a repository without weights, and as
    ``download.cached`` does.
    """
    if isinstance(place, Path):
        return place
    offline = is_offline(offline)
    if repository := _repository(place):
        from converters.download.snapshots import snapshot

        return snapshot(*repository, offline=offline, whole=whole, progress=progress)
    if handle := kaggle.handle_of(place):
        progress("downloading", 0, 0)
        return kaggle.fetch(handle, offline=offline)
    if handle := kaggle_handle(place):
        return _module(place, handle, offline, progress)
    return _files(place, size, offline, progress)


def downloads(address: str) -> list[Slot]:
    """The places in the cache of the files that ``fetch`` downloads itself; none of what has a cache of its own."""
    from converters.download.cache import Slot

    if _repository(address) or kaggle.handle_of(address):
        return []
    parts = [address + name for name in MODULE_FILES] if address.endswith("/") else [address]
    return [Slot.of(without_credentials(fetchable(part))[0]) for part in parts]


def remove_downloads(address: str) -> None:
    """Removes these files from the cache, and a module's links to them."""
    from converters.download.cache import Slot

    slots = downloads(address)
    for slot in [*slots, Slot.of(address)] if slots and address.endswith("/") else slots:
        with slot.locked():
            slot.clear()


def canonical(address: str) -> str:
    """The one spelling of an address that may be written down: without credentials, query or fragment."""
    if repository := _repository(address):
        return HUB + "@".join(filter(None, repository))
    if handle := kaggle.handle_of(address):
        return f"{kaggle.SCHEME}://{handle}"
    parts = urlsplit(without_credentials(fetchable(address))[0])
    return printable(urlunsplit((parts.scheme, parts.netloc.lower(), parts.path, "", "")))


def _module(address: str, handle: str, offline: bool, progress: Progress) -> Path:
    """A module of tfhub.dev, which has led to Kaggle since 2023: from the cache, tfhub.dev or Kaggle."""
    try:
        return _files(address, None, offline, progress)
    except (HubError, CheckpointError) as error:  # no file, or Kaggle's page instead of it
        try:
            return fetch(f"{kaggle.SCHEME}://{handle}", offline=offline, progress=progress)
        except (HubError, UsageError) as other:
            reason = str(error).splitlines()[0]
            raise HubError(f"{reason}\n{' '.join(str(other).splitlines())}") from other


def _files(place: str, size: int | None, offline: bool, progress: Progress) -> Path:
    """A file, or the files of a module's folder."""
    from converters.download.http import cached

    if not place.endswith("/"):
        return cached(place, size=size, offline=offline, progress=progress)
    return _folder(place, {name: cached(place + name, offline=offline, progress=progress) for name in MODULE_FILES})


def _repository(address: str) -> tuple[str, str | None] | None:
    """Repository id and revision, where the address is one of a repository."""
    for prefix in (HUB, endpoint() + "/"):
        if address.startswith(prefix):
            found = REPOSITORY.fullmatch(address.removeprefix(prefix).rstrip("/"))
            if found:
                return found["id"], found["revision"]
            if prefix == HUB:
                raise UsageError(
                    f"{address}: not a repository. Write hf://NAMESPACE/NAME or hf://NAMESPACE/NAME@REVISION."
                )
    return None


def _folder(address: str, files: dict[str, Path]) -> Path:
    """Downloaded files under their own names, as links in a folder of the cache."""
    from converters.download.cache import Slot

    slot = Slot.of(address)
    with slot.locked():
        for name, path in files.items():
            link = slot.folder / "module" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = link.with_name(f"{link.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(path)
            fresh.replace(link)
    return slot.folder / "module"
