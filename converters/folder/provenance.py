"""The record of where a folder comes from: provenance.json, an in-toto statement with SLSA's predicate.

Plan, source, sha256 of the files → ``Provenance`` → provenance.json → ``differences()`` → what of one does not hold

It says nothing that does not follow from these: no time, no host, no path of this machine. So the same source, options
and version give the same bytes. The card and parity.json, which hold measured figures, are not among its subjects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

from converters.errors import CheckpointError
from converters.files import PROVENANCE, read_json
from converters.folder.plan import Plan
from converters.mapping.storage import Storage
from converters.redaction import printable
from converters.sources import GoogleView

if TYPE_CHECKING:
    from verify import Report

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://bit-convert.github.io/bit-convert/provenance.html#v1"
"""The name of what the predicate's fields mean: docs/provenance.md."""
BUILDER = "https://github.com/bit-convert/bit-convert"
TOLD = {"variant": str, "max-shard-size": int}
"""Options that no folder shows, and their types: what is said of them is taken as it is."""
ABSENT = "absent"

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Provenance:
    """The facts that provenance.json states."""

    files: Mapping[str, str]
    """Name → sha256 of what makes the folder a model."""
    options: Mapping[str, str | int]
    version: str
    sha256: str
    """The checkpoint's."""
    name: str
    """The name of its file or folder, without the path to it."""
    uri: str
    """The address it was fetched from, without credentials; empty for what lay on this machine."""

    @classmethod
    def of(cls, plan: Plan, files: Mapping[str, str], source: GoogleView, uri: str, version: str) -> Self:
        options = options_of(plan.storage, plan.pool_padding)
        if plan.storage.max_shard_size is not None:
            options["max-shard-size"] = plan.storage.max_shard_size
        if plan.variant is not None:
            options["variant"] = plan.variant.name
        return cls(files, options, version, source.sha256, printable(PurePath(source.path).name), uri)

    @classmethod
    def said(cls, content: Content) -> Self:
        """Reads what it can of a file of unknown origin, and leaves the rest empty."""
        definition = _at(content, "predicate", "buildDefinition")
        options, held = _at(definition, "externalParameters"), _at(definition, "resolvedDependencies", 0)
        told = {name: _at(options, name) for name, kind in TOLD.items() if isinstance(_at(options, name), kind)}
        origin = _text(held, "digest", "sha256"), _text(held, "name"), _text(held, "uri")
        version = _text(content, "predicate", "runDetails", "builder", "version", "bit-convert")
        return cls(_files(_at(content, "subject")), told, version, *origin)

    def content(self) -> dict[str, Any]:
        """The statement."""
        source = {key: value for key, value in (("name", self.name), ("uri", self.uri)) if value}
        return {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": self.files[name]}} for name in sorted(self.files)],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": dict(self.options),
                    "resolvedDependencies": [{**source, "digest": {"sha256": self.sha256}}],
                },
                "runDetails": {"builder": {"id": BUILDER, "version": {"bit-convert": self.version}}},
            },
        }


def options_of(storage: Storage, pool_padding: str) -> dict[str, str | int]:
    """The options that a folder shows by what it is, as the command line spells them."""
    return {"layout": storage.layout, "dtype": storage.dtype, "exact": storage.exact, "pool-padding": pool_padding}


def read(folder: Path) -> Content | None:
    """The folder's statement, if it has one that is said to be of bit-convert; another builder's says other things."""
    try:
        content = read_json(folder / PROVENANCE)
    except CheckpointError:
        return None
    return content if _at(content, "predicate", "buildDefinition", "buildType") == BUILD_TYPE else None


def differences(
    content: Content | None, files: Mapping[str, str], sha256: str, options: Mapping[str, str | int]
) -> list[tuple[str, object, object]]:
    """Each field that is not as these files, a source of this sha256 and these options have it: what it must be, and
    what it is.

    No content differs everywhere. The source's address and name, the version, and what TOLD names are taken as they
    are said.
    """
    content = content or {}
    said = Provenance.said(content)
    wanted = replace(said, files=files, sha256=sha256, options={**said.options, **options}).content()
    must, found = dict(_leaves(wanted)), dict(_leaves(content))
    pairs = ((place, must.get(place, ABSENT), found.get(place, ABSENT)) for place in must | found)
    return [(".".join(map(str, place)), wanted, value) for place, wanted, value in pairs if wanted != value]


def unlike(content: Content | None, report: Report) -> list[str]:
    """Each field that is not as the report on the same conversion has it."""
    options = options_of(Storage.of(report), report.pool_padding)
    return [place for place, _, _ in differences(content, report.files, report.source.get("sha256") or "", options)]


def _leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value that is no object or list, by its place; of the subjects, by the file's name."""
    if place == ("subject",) and isinstance(value, list) and value and len(files := _files(value)) == len(value):
        yield from ((("subject", name), digest) for name, digest in files.items())
    elif isinstance(value, dict | list) and value:
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, (*place, key))
    else:
        yield place, value


def _files(subjects: Any) -> dict[str, str]:
    """Name → sha256 of the subjects that have no more and no less."""
    whole = (each for each in subjects if isinstance(each, dict)) if isinstance(subjects, list) else ()
    read = [(_text(each, "name"), _text(each, "digest", "sha256"), each) for each in whole]
    return {name: digest for name, digest, each in read if each == {"name": name, "digest": {"sha256": digest}}}


def _text(content: Any, *path: str) -> str:
    found = _at(content, *path)
    return found if isinstance(found, str) else ""


def _at(content: Any, *path: str | int) -> Any:
    """The value at a path of keys and indices; None where there is none."""
    for key in path:
        held = isinstance(content, dict if isinstance(key, str) else list)
        content = content[key] if held and (key in content if isinstance(key, str) else key < len(content)) else None
    return content
