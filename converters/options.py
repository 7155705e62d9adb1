"""The options of a conversion, an audit and a publication: one frozen object each, carried whole.

command line or keywords → ``ConvertOptions``, ``AuditOptions``, ``PublishOptions`` → whoever needs one of their fields

An object that was made holds no contradiction: each is looked for when it is made, and nowhere else. Nothing heavy is
imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from converters.choices import (
    COMPUTE,
    DEVICES,
    DTYPES,
    EXACT,
    INPUTS,
    LAYOUTS,
    ORACLES,
    PATIENCE,
    POOL_PADDINGS,
    RUNNERS,
)
from converters.errors import UsageError

if TYPE_CHECKING:
    from converters.mapping.layouts import Exact
    from verify.precision import Computing
    from verify.protocols import PoolPadding

UNSCALED = ("original", "npz")
"""Layouts whose own library, Google's, has the epsilon 1e-10."""
MAX_SHARD_SIZE = 5 * 10**9
"""Bytes of one file, as the Hub has it; the largest released network takes 4.43 GB."""
NETWORKED = ("--private", "--create-pr", "--commit-message", "--collection")
"""Options that a folder hub has no use for."""
UNITS = ("", "K", "M", "G", "T")

T = TypeVar("T")


TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "is neither True nor False"),
    "int": ((int,), "is no whole number"),
    "float": ((int, float), "is no number of seconds"),
    "Path": ((Path,), "is no path"),
    "str | None": ((str,), "is no text"),
    "tuple[str, ...]": ((tuple,), "is no tuple of names"),
}
"""Annotation of a field → the types of its value, and what any other is. A ``str`` that must be there is one of some
words, which are looked for one by one."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the types that their fields have: of any other, "no" would be taken for True, and "" for None."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, annotation = getattr(self, field.name), str(field.type)
            if value is None and annotation.endswith(" | None"):
                continue
            option = f"--{field.name.replace('_', '-')}"
            types, otherwise = TYPES.get(annotation, TYPES.get(annotation.removesuffix(" | None"), ((object,), "")))
            if not isinstance(value, types) or (isinstance(value, bool) and types[0] is int):
                raise UsageError(f"{option} {value!r} {otherwise}.")
            if annotation == "str | None" and not str(value).strip():
                raise UsageError(f"{option} is empty. Leave it out, or give it a value.")


@dataclass(frozen=True, kw_only=True)
class Proof(Options):
    """The options of a proof of parity, whether of a conversion or in an audit."""

    pool_padding: PoolPadding | None = None
    """None: as the checkpoint has it."""
    images: Path | None = None
    """A directory of photographs."""
    oracles: tuple[str, ...] = ()
    """Keys of ``verify.oracles.agreement.MAKERS``."""
    offline: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool_padding is not None:
            _refuse_unknown("--pool-padding", self.pool_padding, POOL_PADDINGS)
        for name in self.oracles:
            _refuse_unknown("--oracle", name, ORACLES)
        if self.images is not None and not self.images.is_dir():
            raise UsageError(f"{self.images}: no such folder. Give a folder of photographs with --images.")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Proof):
    """The options of a conversion."""

    layout: str = "transformers"
    dtype: str = "float32"
    max_shard_size: int = MAX_SHARD_SIZE
    exact: Exact = "bits"
    verify: bool = True
    force: bool = False
    sign_key: Path | None = None
    """A PEM file with a private key to sign the folder with."""
    sign: bool = False
    """The folder is signed with an identity, by sigstore."""
    refresh: bool = False
    """Card and report of a folder that another version made are made again."""
    patience: float = PATIENCE
    """Seconds for which a server of the checkpoint that asks to wait is waited for, without progress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_impatience(self.patience)
        _refuse_unknown("--layout", self.layout, LAYOUTS)
        _refuse_unknown("--dtype", self.dtype, DTYPES)
        _refuse_unknown("--exact", self.exact, EXACT)
        _refuse_missing("--sign-key", self.sign_key)
        if self.sign and self.sign_key is not None:
            raise UsageError("--sign signs with an identity, --sign-key with a key. Leave one out.")
        if self.layout in UNSCALED and self.exact == "logits":
            raise UsageError(f"--exact logits is for libraries that hard-code 1e-8; --layout {self.layout} has none.")
        if self.exact == "logits" and self.pool_padding == "-inf":
            raise UsageError("--exact logits is for libraries that pad with zeros. Leave out --pool-padding -inf.")
        if self.layout == "npz" and self.dtype != "float32":
            raise UsageError("--layout npz is Google's own file, in float32. Leave out --dtype.")


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Proof):
    """The options of an audit."""

    variant: str | None = None
    """The checkpoint's variant, where its name is not one."""
    inputs: str = "default"
    """A key of ``verify.images.IMAGES``."""
    runners: tuple[str, ...] = ()
    """Keys of ``converters.auditing.target.RUNNERS``."""
    compute: str = "float32"
    device: str = "cpu"
    dataset: Path | None = None
    """Labelled images: a folder with a sub-folder for each class, or a CSV."""
    limit: int | None = None
    """The number of them that are evaluated; None: all."""
    verify_key: Path | None = None
    """A PEM file with the public key that the folder's signature must hold by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unknown("--inputs", self.inputs, INPUTS)
        for name in self.runners:
            _refuse_unknown("--runner", name, RUNNERS)
        _refuse_unknown("--compute", self.compute, COMPUTE)
        _refuse_unknown("--device", self.device, DEVICES)
        _refuse_missing("--verify-key", self.verify_key)
        if self.dataset is not None and not self.dataset.exists():
            raise UsageError(f"{self.dataset}: no such folder or CSV. Give labelled images with --dataset.")
        if self.limit is not None and self.dataset is None:
            raise UsageError("--limit is for the images of a data set. Add --dataset, or leave it out.")
        if self.limit is not None and self.limit <= 0:
            raise UsageError(f"--limit {self.limit!r} is no number of images.")
        if refusal := self.computing.refusal():
            asked = f"--compute {self.compute} --device {self.device}"
            raise UsageError(f"{asked}: {refusal}. Leave them out, or run it elsewhere.")

    @property
    def computing(self) -> Computing:
        """The precision and the device of the readers."""
        from verify.precision import Computing

        return Computing(self.compute, self.device)


@dataclass(frozen=True, kw_only=True)
class PublishOptions(Options):
    """The options of a publication."""

    repo_id: str | None = None
    """None: the model's name in ``namespace``."""
    namespace: str | None = None
    """None: the token's user."""
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    """A branch, made where it is missing; None: main."""
    tag: str | None = None
    collection: str | None = None
    """The title, or the slug, of a collection of the Hub that gathers what was published."""
    commit_message: str | None = None
    """None: that the model was added; of several lines the first is the title."""
    hub: Path | None = None
    """A folder in the Hub cache's layout, instead of the Hub."""
    refresh: bool = False
    """A result that another version published is published again, with this version's card and report."""
    patience: float = PATIENCE
    """Seconds for which a Hub that asks to wait is waited for, without progress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_impatience(self.patience)
        if self.repo_id and self.namespace:
            raise UsageError("--repo-id names the namespace already. Leave out --namespace.")
        networked = [option for option in self.given if option in NETWORKED]
        if self.hub and networked:
            raise UsageError(f"a folder hub has no {networked[0]}. Leave out {networked[0]} or --hub.")
        if self.create_pr and (self.tag is not None or self.revision not in (None, "main")):
            raise UsageError("--create-pr proposes a change to main: it goes with neither --revision nor --tag.")

    def repository(self, name: str) -> str:
        """The repository of a model of this name, as far as it is known before the Hub is asked."""
        namespace = self.namespace or ("" if self.hub else "(the token’s user)")
        return self.repo_id or "/".join(filter(None, (namespace, name)))

    @property
    def given(self) -> list[str]:
        """The options that are of use to a publication alone, where they are not the default."""
        names = (field.name for field in fields(self) if field.name not in ("patience", "refresh"))
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions(Options):
    """The options of a run over several models."""

    jobs: int = 1
    """Processes on this machine; 0: as many as there are cores."""
    scheduler: str | None = None
    """The address of a Dask cluster's scheduler."""
    recheck: bool = False
    """Every file is read, whatever is remembered of it."""
    discard: bool = False
    """Downloads and folders are removed once they are published."""
    events: Path | None = None
    """A file to which a line of JSON is added for each event."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jobs < 0:
            raise UsageError(f"--jobs {self.jobs!r} is no number of processes.")
        if self.scheduler is not None and self.jobs != 1:
            raise UsageError("--scheduler has workers of its own. Leave out --jobs.")


def taken(kind: type[T], options: Mapping[str, Any]) -> T:
    """An object of the fields that it has in common with ``options``."""
    names = (field.name for field in fields(kind))  # type: ignore[arg-type]
    return kind(**{name: options[name] for name in names if name in options})


def as_size(value: int | str) -> int:
    """A number of bytes, with or without a decimal unit: ``800MB``. Raises UsageError for anything else."""
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    number = str(value).upper().removesuffix("B") if is_number else ""
    unit = number[-1:] if number[-1:] in UNITS[1:] else ""
    try:
        size = int(float(number.removesuffix(unit)) * 1000 ** UNITS.index(unit))
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"{value!r} is no size such as 5GB or 800MB.")
    return size


def as_path(value: str | os.PathLike[str]) -> Path:
    """A path that the system can look for. Raises UsageError for what can be none."""
    try:
        path = Path(value)
        if b"\0" in os.fsencode(path) or value == "":
            raise ValueError(value)
    except (TypeError, ValueError):
        raise UsageError(f"{value!r} is no path.") from None
    return path


def as_text(value: str) -> str:
    """A name. Raises UsageError for what is no text, and for text that is empty."""
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{value!r} is no name.")
    return value


def as_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several. Raises UsageError for what is neither."""
    if isinstance(value, str):
        return (value,)
    try:
        return tuple(value)
    except TypeError:
        raise UsageError(f"{value!r} is neither a name nor a list of names.") from None


def _refuse_unknown(option: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{option} {value!r} is not known. Choose from {', '.join(choices)}.")


def _refuse_impatience(patience: float) -> None:
    if not 0 <= patience < float("inf"):
        raise UsageError(f"--patience {patience!r} is no number of seconds.")


def _refuse_missing(option: str, file: Path | None) -> None:
    if file is not None and not file.is_file():
        raise UsageError(f"{file}: no such file. Give {option} a key in PEM.")
