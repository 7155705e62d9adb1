"""The result of an audit, and its file ``parity.json``.

A report is a value: the verdict, why, and every figure it rests on. ``bool(report)`` is whether it passed. What is
written is a function of source, target and options: no time, no host, no path and no version of the environment. A
figure that is not finite, or that could not be had, is None and becomes ``null``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from verify.faults import Fault
from verify.protocols import Expectation, Inspected
from verify.typed import converted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Verdict = Literal["passed", "failed", "inconclusive"]
OracleVerdict = Literal["agrees", "disagrees", "failed", "not run"]
Role = Literal["declared", "judged", "shown"]
"""The role of a reader: its figures are the report's, it must agree as well, or it is only shown."""

SCHEMA = 6
"""Version of parity.json's layout."""

REVISION = 12
"""Digits of a revision that a title has."""

FIGURES = 4
"""Significant digits of a figure: what rounding noise is worth."""


def figure(value: float) -> float | None:
    """A figure as a report keeps it: four significant digits, None where it is not finite."""
    return float(f"{value:.{FIGURES - 1}e}") if math.isfinite(value) else None


@dataclass(frozen=True)
class TensorCounts:
    """Numbers of tensors in the source and the target, and of those that match."""

    source: int
    used: int
    """Source tensors used exactly once."""
    target: int
    filled: int
    """Target parameters filled exactly once."""
    bit_exact: int
    """Target parameters that hold, bit for bit, what they must."""


@dataclass(frozen=True)
class LayerReport:
    """One named tensor over all images; ``error`` and ``limit`` are those of the image nearest to failing."""

    name: str
    max_abs_error: float | None
    floor: float | None
    error: float | None
    limit: float | None
    ratio: float | None
    image: int


@dataclass(frozen=True)
class ReaderReport:
    """The result of running the folder in one library."""

    name: str
    role: Role
    verdict: Literal["passed", "failed", "inconclusive", "not run"]
    ratio: float | None
    max_abs_error: float | None
    top1: int | None
    """The number of images on which its largest logit is the oracle's; None without logits. Of noise it says nothing
    of predictions."""
    real_top1: int | None
    """The same of real images alone."""
    exceeds_limit_at: str | None
    """The first tensor whose error exceeds its limit."""
    reason: str
    """The reason why it did not pass; or why, having passed, it is not exact."""
    epsilon: float
    """The epsilon of the oracle that it is compared with: the source's, or the library's own."""
    pool_padding: str
    """The max-pool's padding of that oracle."""
    moved: float | None
    """The largest move of a logit (a pooled feature, without a head) by these two constants: 0 for the source's."""

    @property
    def cannot_run(self) -> bool:
        """Whether the library failed without computing anything."""
        return self.verdict == "failed" and self.ratio is None and self.exceeds_limit_at is None


@dataclass(frozen=True)
class OracleReport:
    """One oracle beside the first, compared with it on the source."""

    oracle: str
    """Its name in options."""
    name: str
    verdict: OracleVerdict
    """Nothing can be concluded where it disagrees, or failed: it was asked for, and could not be run."""
    compared: int
    """Tensors, each image's by itself, that were held against the first oracle's."""
    reason: str
    """The difference, why it was not run, or a note."""


@dataclass(frozen=True)
class WeightReport:
    """One stored parameter: the link between the source's digest and the file's."""

    name: str
    source: str
    sha256: str
    """The digest of the stored values, little-endian and in C order."""
    bit_exact: bool


@dataclass(frozen=True)
class ImageReport:
    """An image the verdict rests on: what is needed to know it again."""

    height: int
    width: int
    sha256: str
    real: bool
    """Whether it is a photograph that a user gave, and not noise."""


def image_report(image: npt.NDArray[np.float32], real: bool = False) -> ImageReport:
    """Returns the report of a (1, 3, height, width) image."""
    digest = hashlib.sha256(image.astype("<f4").tobytes()).hexdigest()
    return ImageReport(image.shape[2], image.shape[3], digest, real)


@dataclass(frozen=True)
class LogitReport:
    """One class on the first image."""

    index: int
    oracle: float | None
    model: float | None
    """The declared reader's."""


@dataclass(frozen=True)
class HeldOutReport:
    """Labelled images that the network never saw, and the classes that source and target give them."""

    images: int
    same: int
    """The number of images to which both give the same class."""
    source_right: int
    target_right: int
    label: int
    """The class of the first image; then the classes that the source and the target give it."""
    source_class: int
    target_class: int
    exact: bool
    """Whether every class must be the same: where values and arithmetic are float32."""


@dataclass(frozen=True)
class AccuracyReport:
    """The number of images whose label is the first class, or among the first five."""

    preprocessing: str
    """The way from an image to what the network was given, in words."""
    top1: int
    top5: int


@dataclass(frozen=True)
class ChangedImage:
    """An image that source and target give different classes; None is the class where a logit is not finite."""

    file: str
    label: int
    source_class: int | None
    source_margin: float | None
    """The difference of the two largest logits."""
    target_class: int | None
    target_margin: float | None


@dataclass(frozen=True)
class EvaluationReport:
    """The classes that the oracle on the source and the declared reader give the images of a labelled data set."""

    dataset: str
    sha256: str
    """The digest of the lines "sha256 of the file, label, name" of every image."""
    images: int
    classes: int
    """The number of classes that the images are of."""
    unreadable: int
    """Images that are left out because they could not be read."""
    unreadable_files: tuple[str, ...]
    """The first of them, and why."""
    oracle: str
    reader: str
    source: AccuracyReport
    target: AccuracyReport | None
    """None where the target could not be run on them, for the ``reason``."""
    reason: str
    other_pixels: int
    """Images that the target's own preprocessing makes something else of than the source's."""
    same: int | None
    """The number of images to which both give the same class."""
    ties: int
    """The number of the others between whose first two classes rounding may decide."""
    exact: bool
    """Whether every class must be the same but for ties: where values, arithmetic and pixels are the same."""
    changed: tuple[ChangedImage, ...]
    """The first of the others."""
    names: Mapping[str, str]
    """The classes of these images: index → name, where they are known."""


@dataclass(frozen=True)
class Report:
    """The verdict of an audit; truthy when passed."""

    verdict: Verdict
    reason: str
    """One line: the first thing that is wrong, or what was found equal."""
    max_abs_error: float | None
    """Largest error of a logit (of a pooled feature, without a head) of the declared reader, against float64."""
    floor: float | None
    """The same of the oracle's own float32 runs."""
    ratio: float | None
    """The largest error divided by its floor, over all tensors: above ``FACTOR`` it fails. The bound of rule 2 counts
    as ``FACTOR`` floors."""
    tensors: TensorCounts
    layers: tuple[LayerReport, ...] = field(repr=False)
    readers: tuple[ReaderReport, ...] = field(repr=False)
    oracle: str
    """The names of the oracles that agree."""
    other_oracles: tuple[OracleReport, ...] = field(repr=False)
    layout: str
    dtype: str
    """The dtype of the target's values; oracle and model both run on the rounded ones."""
    rounding: float | None
    """The largest move of a logit (a pooled feature, without a head) by rounding to ``dtype``; 0 for float32."""
    exact: str
    pool_padding: str
    source: Mapping[str, str]
    """``file``, ``format``, ``sha256``."""
    files: Mapping[str, str] = field(repr=False)
    """The target's files: name → sha256."""
    images: tuple[ImageReport, ...] = field(repr=False)
    release: str
    changed: tuple[str, ...] = field(default=())
    """Files of target or source that were replaced, added or removed while the audit ran."""
    misfits: tuple[str, ...] = field(default=(), repr=False)
    """Every stored value, source tensor or target parameter that is not what it must be."""
    weights: tuple[WeightReport, ...] = field(default=(), repr=False)
    expectations: tuple[Expectation, ...] = field(default=(), repr=False)
    """Fields of the target's files: what they must be and what they are."""
    inspected: tuple[Inspected, ...] = field(default=(), repr=False)
    """Files of the target and fields of its JSON, and what became of each."""
    feature_floor: float | None = field(default=None)
    """The largest floor of the pooled features over their size: above √u = 2⁻¹², nothing can be concluded."""
    logits: tuple[LogitReport, ...] = field(default=(), repr=False)
    """Some classes, evenly spaced, for a plot."""
    held_out: HeldOutReport | None = field(default=None, repr=False)
    """The result on held-out images; None where the source is not known to be a variant that has some."""
    evaluation: EvaluationReport | None = field(default=None, repr=False)
    """The result on a labelled data set; None where none was given."""
    faults: tuple[Fault, ...] = field(default=())
    """The faults, each with its kind and place; the first is the one to mend first."""
    target: Mapping[str, str] = field(default_factory=dict)
    """``name``, and of a repository ``revision``, of what was audited; empty where nobody said it."""

    @property
    def title(self) -> str:
        """The name of the report, which tells it from those of other ports: what was audited, against what."""
        name = self.target.get("name") or f"a folder in the layout of {self.layout}"
        revision = self.target.get("revision", "")[:REVISION]
        return f"{name}{'@' if revision else ''}{revision} against {self.source.get('file', 'a checkpoint')}"

    @property
    def fault(self) -> Fault | None:
        return self.faults[0] if self.faults else None

    @property
    def nearest(self) -> str:
        """The tensor whose error is nearest to its limit, or furthest beyond it; empty where none was compared."""
        return max(((layer.ratio, layer.name) for layer in self.layers if layer.ratio is not None), default=(0, ""))[1]

    @property
    def counting(self) -> list[ReaderReport]:
        """The declared reader, and of the others those that are judged."""
        return [reader for index, reader in enumerate(self.readers) if not index or reader.role != "shown"]

    @property
    def real_images(self) -> int:
        """The number of real images among ``images``."""
        return sum(image.real for image in self.images)

    @property
    def unknown(self) -> tuple[Inspected, ...]:
        """Files and fields of which nobody knows what they change."""
        return tuple(each for each in self.inspected if each.fate == "unknown")

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"

    def __bool__(self) -> bool:
        return self.passed

    def to_json(self) -> str:
        """The text of parity.json: strict JSON, ending in a newline."""
        content = {"passed": self.passed, **asdict(self), "schema": SCHEMA}
        content["digest"] = content_digest(content)
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that a parity.json was written from.

        Raises ValueError where the text is not such a file, or was edited without its digest.
        """
        import msgspec

        content = _strict(text)
        if content.get("schema") != SCHEMA:
            raise ValueError(f"not a parity.json of schema {SCHEMA}")
        missing = [each.name for each in fields(cls) if each.name not in content]
        if missing:
            raise ValueError(f"not a parity.json: it has no `{missing[0]}`")
        try:
            report = converted(content, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"not a parity.json: {error}") from error
        if content.get("passed") is not report.passed:
            raise ValueError(f"parity.json says passed: {content.get('passed')} beside the verdict {report.verdict!r}")
        if content.get("digest") != content_digest(content):
            raise ValueError("parity.json was edited: its digest is another")
        return report


def content_digest(content: Mapping[str, Any]) -> str:
    """sha256 over everything but the digest itself, in canonical form."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of parity.json, as the package ships it; objects may have more keys."""
    import msgspec

    _, definitions = msgspec.json.schema_components([Report], ref_template="#/$defs/{name}")
    content: dict[str, Any] = definitions.pop("Report")
    for each in content["properties"].values():
        each.pop("default", None)  # of the class; a file has every key
    content["required"] = ["passed", *(field_.name for field_ in fields(Report)), "schema", "digest"]
    content["properties"] |= {"passed": {"type": "boolean"}, "schema": {"const": SCHEMA}, "digest": {"type": "string"}}
    header = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "parity.json"}
    return {**content, **header, "$defs": definitions}


def _strict(text: str) -> dict[str, Any]:
    def refuse(token: str) -> Any:
        raise ValueError(f"not strict JSON: {token}")

    def finite(token: str) -> float:
        return float(token) if math.isfinite(float(token)) else refuse(token)

    content = json.loads(text, parse_constant=refuse, parse_float=finite)
    if not isinstance(content, dict):
        raise ValueError("not a parity.json: no object")
    return content
