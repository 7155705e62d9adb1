"""The functions of ``converters``: keywords in, the objects that the commands work with out.

Each takes what its command takes, does what it does, and raises what it says, a ``BitConvertError`` in every case but
for a keyword that does not exist. Nothing is printed; ``progress``, where given, is called with what is being done, how
many steps of it are done, and how many there are (0: not known). Calls from several threads are safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from converters import conversion as conversions
from converters.auditing.audits import audit_target, write_report
from converters.catalogue.variants import Variant, find, find_one
from converters.choices import PATIENCE
from converters.conversion import Conversion, Request
from converters.download.locations import checkpoint_of
from converters.errors import UsageError, system_errors
from converters.hub.guard import Publication
from converters.mapping.architecture import Architecture
from converters.mapping.layouts import Exact
from converters.options import (
    MAX_SHARD_SIZE,
    AuditOptions,
    ConvertOptions,
    PublishOptions,
    as_names,
    as_path,
    as_size,
    as_text,
)
from converters.placing import refuse_unwritable
from converters.release.again import audited_by
from converters.sources import GoogleView
from converters.sources import open_checkpoint as opened
from converters.sources.base import Array
from verify import Report
from verify.protocols import PoolPadding, Progress

AnyPath = str | os.PathLike[str]


def convert(
    variant: str | None = None,
    *,
    checkpoint: AnyPath | None = None,
    output: AnyPath | None = None,
    layout: str = "transformers",
    dtype: str = "float32",
    max_shard_size: int | str = MAX_SHARD_SIZE,
    exact: Exact = "bits",
    pool_padding: PoolPadding | None = None,
    verify: bool = True,
    images: AnyPath | None = None,
    oracles: str | Iterable[str] = (),
    sign_key: AnyPath | None = None,
    sign: bool = False,
    force: bool = False,
    refresh: bool = False,
    offline: bool = False,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> Conversion:
    """Converts one checkpoint to a folder, and proves that the folder computes what the checkpoint computes.

        >>> conversion = convert("BiT-digits", output="models")
        >>> conversion.folder, conversion.report.verdict
        (PosixPath('models/BiT-digits'), 'passed')

    ``variant`` is a name of the catalogue; ``checkpoint`` a file, a folder or an address (https://, gs://, hf://,
    kaggle://) that is read instead. ``output`` is the parent of a variant's folder (default: ./models), or with
    ``checkpoint`` the folder itself. The other keywords are the options of ``bit-convert``: ``layout`` is transformers,
    timm, original or npz, ``dtype`` float32, float16 or bfloat16, ``max_shard_size`` in bytes or as "5GB", ``exact``
    bits or logits, ``pool_padding`` zeros or -inf (None: as the checkpoint has it), ``images`` a folder of photographs
    to verify with, ``oracles`` of graph, keras and tensorflow, ``sign_key`` a file with a private key to sign with;
    ``sign`` signs with an identity instead, by sigstore. A folder that holds this result already is left as it is, also
    one that another version made, but with ``refresh``. ``patience`` is for how many seconds a server that asks to wait
    is waited for.

    Returns the folder, its report (None with ``verify=False``), the seconds it took, and what was left out.

    Raises UsageError for options that do not go together and an output folder that holds something else,
    CheckpointError for a checkpoint that is missing, unreadable, unsafe or not BiT, HubError where it cannot be
    downloaded, and ParityError where verification does not pass: the report is then all there is, in ``OUTPUT.failed``.
    """
    with _Told(progress) as told, system_errors():
        options = ConvertOptions(
            layout=layout,
            dtype=dtype,
            max_shard_size=as_size(max_shard_size),
            exact=exact,
            pool_padding=pool_padding,
            verify=verify,
            images=_path(images),
            oracles=as_names(oracles),
            sign_key=_path(sign_key),
            sign=sign,
            force=force,
            refresh=refresh,
            offline=offline,
            patience=patience,
        )
        if variant is None and checkpoint is None:
            raise UsageError("nothing to convert. Give the name of a variant (see variants()), or a checkpoint.")
        request = Request(
            None if variant is None else find_one(as_text(variant)),
            None if checkpoint is None else _place(checkpoint),
            _path(output),
            options,
        )
        return conversions.convert(request, told)


def audit(
    folder: AnyPath,
    *,
    against: AnyPath,
    variant: str | None = None,
    report: AnyPath | None = None,
    pool_padding: PoolPadding | None = None,
    images: AnyPath | None = None,
    inputs: str = "default",
    runners: str | Iterable[str] = (),
    compute: str = "float32",
    device: str = "cpu",
    dataset: AnyPath | None = None,
    limit: int | None = None,
    oracles: str | Iterable[str] = (),
    verify_key: AnyPath | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Judges a folder, whoever made it, against a checkpoint: the verdict of ``bit-verify``.

        >>> report = audit("models/BiT-digits", against="BiT-digits")
        >>> bool(report), report.verdict, report.ratio <= 2.5
        (True, 'passed', True)

    ``folder`` is a folder or hf://NAMESPACE/NAME. ``against`` is the checkpoint: as text a name of the catalogue, which
    wins over a path, a path or an address; a ``Path`` is always a path. ``report`` is a folder for parity.json and
    parity.html; without it nothing is written. The other keywords are the options of ``bit-verify``: ``variant`` says
    what the checkpoint is, so that labels and preprocessing are compared too; ``inputs`` is default or thorough;
    ``runners`` are of bit_ref, stock-arithmetic, transformers and timm; ``compute`` is float32, tf32, bfloat16 or
    float16, ``device`` cpu or cuda, ``verify_key`` the public key that the folder's signature must hold by; ``dataset``
    is a folder of labelled images, with a sub-folder for each class, or a CSV of paths and labels, and ``limit`` how
    many of them are evaluated: ``report.evaluation`` then has the accuracy of both.

    Returns the report, truthy when passed; ``max_abs_error`` and ``floor`` are in units of the logits, ``ratio`` is the
    largest error in multiples of float32 rounding, of which 2.5 are allowed.

    Raises UsageError for wrong options, a folder that is missing or its own source; CheckpointError for a checkpoint or
    a folder that cannot be read, HubError where one cannot be downloaded. A model that fails raises nothing.
    """
    with _Told(progress) as told, system_errors():
        options = AuditOptions(
            variant=None if variant is None else as_text(variant),
            pool_padding=pool_padding,
            images=_path(images),
            inputs=inputs,
            runners=as_names(runners),
            compute=compute,
            device=device,
            dataset=_path(dataset),
            limit=limit,
            oracles=as_names(oracles),
            verify_key=_path(verify_key),
            offline=offline,
        )
        place = _path(report)
        if place is not None:
            refuse_unwritable(place, "report=")
        found = audit_target(_place(folder), _place(against, names=True), options, told)
        if place is not None:
            write_report(found, place, audited_by(os.fspath(folder), os.fspath(against), options))
        return found


def publish(
    conversion: Conversion,
    *,
    repo_id: str | None = None,
    hub: AnyPath | None = None,
    namespace: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    commit_message: str | None = None,
    refresh: bool = False,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> Publication:
    """Publishes a conversion that was verified, in one commit; where the result is there already, none is made.

        >>> publication = publish(conversion, repo_id="me/BiT-digits", hub="hub")
        >>> publication.repo_id, publication.revision, publication.changed
        ('me/BiT-digits', 'main', True)

    ``repo_id`` is NAMESPACE/NAME (default: the model's name under ``namespace``, or under the token's user). ``hub`` is
    a folder in the Hub cache's layout; without it, $HF_ENDPOINT or huggingface.co. ``private`` is for a repository that
    is new, ``create_pr`` opens a pull request, ``revision`` is a branch, made where it is missing, ``tag`` is never
    moved, ``commit_message`` has the commit's title in its first line, ``refresh`` renews what another version
    published, ``patience`` is for how many seconds a Hub that asks to wait is waited for.

    Raises ParityError where the conversion has no report that passed, or its files have changed since; UsageError for
    names and options that cannot be; HubError where the hub refuses, cannot be reached or cannot be written.
    """
    if not isinstance(conversion, Conversion):
        raise UsageError(f"{conversion!r} cannot be published. Give what convert() returned.")
    with _Told(progress) as told, system_errors():
        options = PublishOptions(
            repo_id=repo_id,
            namespace=namespace,
            private=private,
            create_pr=create_pr,
            revision=revision,
            tag=tag,
            commit_message=commit_message,
            refresh=refresh,
            patience=patience,
            hub=_path(hub),
        )
        return conversions.publish(conversion, options, told)


class Checkpoint:
    """A checkpoint that is open: ``with open_checkpoint(…) as checkpoint``. Threads may share it."""

    def __init__(self, source: GoogleView) -> None:
        self._source, self._is_closed = source, False
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        return self._source.path

    @property
    def format(self) -> str:
        """npz, h5, saved-model, …"""
        return self._source.format

    @property
    def architecture(self) -> Architecture:
        """Units, widths and classes, inferred from names and shapes."""
        return self._source.architecture

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, under the names and in the order of Google's npz files.

        Kernels are (height, width, inputs, outputs), the head's too; scales and biases (channels,).
        """
        return self._source.shapes

    def read(self, name: str) -> Array:
        """The values of one tensor: a fresh float32 array of ``shapes[name]``, whatever the checkpoint's format is.

        Raises UsageError for a name that is not in ``shapes`` and a checkpoint that is closed, CheckpointError for a
        tensor that is broken or not finite.
        """
        with self._lock, system_errors():
            if self._is_closed:
                raise UsageError(f"{self.path}: is closed. Read inside the with block.")
            if not isinstance(name, str) or name not in self.shapes:
                raise UsageError(f"{self.path}: no tensor is called {name!r}. See shapes.")
            return self._source.read(name)

    def close(self) -> None:
        """Lets go of the file; twice does no harm."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._source.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path}: {self.format}, {self.architecture}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_checkpoint(checkpoint: AnyPath, *, offline: bool = False, progress: Progress | None = None) -> Checkpoint:
    """Opens a checkpoint in any format that is read; names and shapes are there at once, values as they are asked for.

        >>> with open_checkpoint("BiT-digits") as checkpoint:
        ...     checkpoint.read("resnet/root_block/standardized_conv2d/kernel").shape
        (7, 7, 3, 32)

    ``checkpoint`` is as text a name of the catalogue, which wins over a path, a path or an address; a ``Path`` is
    always a path.

    Raises CheckpointError for one that is missing, unreadable, unsafe or not one whole BiT, UsageError for text that is
    neither a file nor a name, HubError where it cannot be downloaded.
    """
    if not isinstance(offline, bool):
        raise UsageError(f"--offline {offline!r} is neither True nor False.")
    with _Told(progress) as told, system_errors():
        path, _ = checkpoint_of(_place(checkpoint, names=True), offline, told)
        return Checkpoint(opened(path))


def variants(glob: str = "*") -> tuple[Variant, ...]:
    """Lists what Google released, and the checkpoint that ships with this package, in the catalogue's order.

        >>> [variant.name for variant in variants("BiT-d*")]
        ['BiT-digits']

    ``glob`` is a pattern of names such as "BiT-M-*", a name, or the path, handle or address of a published file.
    Each has the network's ``architecture`` and ``classes``, the file's ``url`` and ``bytes``, and where they stand.

    Raises UsageError, with the nearest names, where nothing matches.
    """
    return find(as_text(glob))


def _path(given: AnyPath | None) -> Path | None:
    return None if given is None else as_path(given)


def _place(given: AnyPath, names: bool = False) -> Path | str:
    """A path; text that is an address, or with ``names`` may be a name, stays text."""
    path = as_path(given)
    return given if isinstance(given, str) and (names or "://" in given) else path


class _Raised(BaseException):
    """An error of the caller's own progress, on its way out: nothing on the way takes it for a fault of a model."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error, self.context = error, error.__context__


class _Told:
    """The progress of a call, inside; what the caller's function raises ends the call, as what it is."""

    def __init__(self, progress: Progress | None) -> None:
        """Raises UsageError for what cannot be called."""
        if progress is not None and not callable(progress):
            raise UsageError(f"progress={progress!r} is no function. Give one of (what, done, total), or leave it out.")
        self._progress = progress

    def __enter__(self) -> Progress:
        return self._tell

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, _Raised):
            try:
                raise error.error
            finally:
                error.error.__context__ = error.context

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            try:
                self._progress(what, done, total)
            except BaseException as error:
                raise _Raised(error) from None
