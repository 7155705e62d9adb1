"""One job of a release, and what an attempt at it ends in. All of it may travel from process to process.

Request, PublishOptions → Job → ``one.release_one`` → Result | Later
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from converters.conversion import Conversion, Request
from converters.download.locations import locate
from converters.errors import BitConvertError, UsageError
from converters.hub.guard import Publication
from converters.options import AuditOptions, PublishOptions
from converters.redaction import printable
from verify import Report

if TYPE_CHECKING:
    from converters.release.schemas.document import Entry


class State(StrEnum):
    """The end of a job."""

    CONVERTED = "converted"
    """Made, and not to be published."""
    PUBLISHED = "published"
    """Committed to a hub."""
    UNCHANGED = "unchanged"
    """All of it was there already, on disk and where asked for on the hub."""
    FAILED = "failed"
    NOT_TRIED = "not tried"
    """The run ended before its turn."""
    PLANNED = "planned"
    """With ``--dry-run``."""
    AUDITED = "audited"
    """A target of ``bit-verify``, with whatever verdict."""


@dataclass(frozen=True)
class Job:
    """One checkpoint to convert, and where to publish it."""

    request: Request
    publish: PublishOptions | None = None
    """None: it stays on disk."""
    discard: bool = False
    """Once it is published, its download and its folder are removed; a record of it stays in the cache."""
    shares_download: bool = False
    """Other jobs of the run are made from the same download, so that it is not this one's to remove."""
    recheck: bool = False
    """Every file is read, whatever is remembered of it."""

    @property
    def source(self) -> Path | str | None:
        """The checkpoint's path or address; None of a defective file, which is said when its turn comes."""
        try:
            return locate(self.request.checkpoint, self.request.variant)
        except UsageError:
            return None

    @property
    def place(self) -> Path:
        """The folder to make; of a checkpoint whose name is known when it is read, some folder beside it."""
        variant = self.request.variant
        return self.request.place(variant.repository_name if variant else "model").absolute()

    @property
    def collection(self) -> str | None:
        """The title or the slug of a collection of the Hub."""
        return self.publish.collection if self.publish else None

    @property
    def name(self) -> str:
        """The variant's name, or the checkpoint as it was given, without secrets."""
        return self.request.variant.name if self.request.variant else printable(self.request.checkpoint)


@dataclass(frozen=True)
class AuditJob:
    """One target to audit, and where its report goes."""

    target: str
    """A folder, or a repository of the Hub."""
    against: str | None
    """The checkpoint: a name, a path or an address; None for the variant that the target itself names."""
    options: AuditOptions
    report: Path
    """The folder for parity.json and parity.html."""

    @property
    def name(self) -> str:
        return printable(self.target)

    @property
    def place(self) -> Path:
        """The folder that is written."""
        return self.report.absolute()


Work = Job | AuditJob
"""One thing for a worker to attempt."""
Asked = tuple[int, int, Work]
"""The number of a job, that of the attempt, and the job."""


@dataclass(frozen=True)
class JobResult:
    """The outcome of a job."""

    name: str
    state: State
    conversion: Conversion | None = None
    publication: Publication | None = None
    error: BitConvertError | None = None
    seconds: float = 0.0
    """Seconds of the attempt that ended it."""
    bytes: int | None = None
    """The size of the files that were made."""
    discarded: bool = False
    """Nothing of it is left on this disk, but for the record of its publication."""
    number: int = 0
    """The place of its job among those of the run."""
    audit: Report | None = None
    """The report on a target of ``bit-verify``."""
    against: str = ""
    """The checkpoint that it was audited against."""
    plan: dict[str, str] = field(default_factory=dict)
    """With ``--dry-run``: what would be done."""

    @property
    def exit_status(self) -> int:
        return self.error.exit_status if self.error else 0

    def to_json(self) -> Entry:
        """Its entry in the document of ``--json``."""
        content: Entry = {"name": self.name, "state": self.state, "exit_status": self.exit_status}
        if self.error:
            content["error"] = str(self.error)
        if self.plan:
            content["plan"] = self.plan
        if self.conversion:
            report = self.conversion.report
            content |= {
                "folder": str(self.conversion.folder),
                "files": self.conversion.files,
                "made": self.conversion.made,
                "architecture": str(self.conversion.plan.architecture),
                "left_out": self.conversion.left_out,
                "seconds": round(self.conversion.seconds, 3),
                "report": json.loads(report.to_json()) if report else None,
            }
        if self.publication:
            content["publication"] = self.publication
        if self.discarded:
            content["discarded"] = True
        return content


@dataclass(frozen=True)
class Later:
    """An attempt that ended because now is not the time; nothing is lost by it."""

    reason: str
    seconds: float
    """The time after which to try again."""
    asked: bool
    """A server asked for it; otherwise another run is at work on the job."""
