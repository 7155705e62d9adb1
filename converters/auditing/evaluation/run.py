"""The evaluation of a folder on a labelled data set.

Folder, options → ``Evaluation`` → images, as both recipes make them → oracle, declared reader → EvaluationReport
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from converters.auditing.evaluation.classes import ClassNames
from converters.auditing.evaluation.datasets import LabelledImage, Listing, listing
from converters.auditing.evaluation.recipes import Recipe, folders_own, google
from converters.auditing.evaluation.results import ImageResult, Results, identity_of
from converters.auditing.evaluation.workers import ImageWorkers, Prepared
from converters.auditing.target import Folder
from converters.errors import UsageError
from converters.redaction import one_line
from verify.compare import U
from verify.evaluation import LISTED, Classifier, Tally, classify, oracle_classifier, reader_classifier
from verify.forward import withheld
from verify.oracles.numpy import NumpyOracle, oracle_name
from verify.protocols import Progress, Reader
from verify.report.parity import ChangedImage, EvaluationReport

BATCH = 16
"""Images that run at once: of R152x4 at 480 the oracle needs some GB for them."""
BATCH_CUDA = 64
STEP = "evaluating"
"""The name of this step for whoever shows progress; it is counted in images."""


@dataclass
class _Side:
    """One of the two networks, and what it takes images for."""

    classifier: Classifier
    results: Results


class Evaluation:
    """An evaluation that can be run, the oracle on ``device``.

    Raises UsageError where the data set or the checkpoint is of no use for it.
    """

    def __init__(self, target: Folder, dataset: Path, limit: int | None = None, device: str = "cpu") -> None:
        if target.plan.architecture.classes is None:
            raise UsageError(
                f"{target.source.path}: has no head, so there is nothing to evaluate. Leave out --dataset."
            )
        self.target = target
        self._device, self._oracle = device, oracle_name(device, "float32")
        self.names = ClassNames.of(target.plan, target.folder)
        self.listing: Listing = listing(dataset, self.names).limited(limit)
        self._identities: dict[LabelledImage, str] = {}
        """Images as they were before anything was read of them."""
        self._unreadable: dict[LabelledImage, str] = {}
        self._reason = ""

    def run(self, progress: Progress) -> EvaluationReport:
        """Evaluates what is not known yet. Raises UsageError where no image can be read."""
        reader = self._reader()
        own, recipe = self._recipes(reader)
        self._identities = {image: identity_of(image) for image in self.listing.images}
        sides = [self._source(own), *([self._target(reader, own, recipe)] if reader else [])]
        try:
            self._evaluate(sides, own, recipe if reader else None, progress)
        finally:
            if reader is not None:
                reader.close()
        return self._report(sides, reader, own, recipe)

    def _reader(self) -> Reader | None:
        """The declared reader, unless it is a library that is not given this folder."""
        reader = next(iter(self.target.readers), None)
        if reader is None:
            self._reason = "no library reads it"
        elif why := withheld(reader, self.target.misleading):
            self._reason, reader = f"{reader.name} {why}", None
        return reader

    def _recipes(self, reader: Reader | None) -> tuple[Recipe, Recipe | None]:
        """The source's recipe, and the folder's own where it has one. A checkpoint that does not say how images are
        prepared is given what the folder makes of them."""
        plan = self.target.plan
        found = folders_own(self.target.for_libraries, plan.layout, reader.name if reader else "")
        if plan.variant is None and plan.found is None and found is not None:
            return found, None
        return google(plan.preprocessing), found

    def _source(self, own: Recipe) -> _Side:
        plan, source = self.target.plan, self.target.source
        oracle = NumpyOracle(source, float32_runs=0, pool_padding=plan.pool_padding, device=self._device)
        key = {"source": source.sha256, "pool_padding": plan.pool_padding, "oracle": self._oracle}
        return _Side(oracle_classifier(oracle), self._results(key, own, ("numpy", "pillow")))

    def _target(self, reader: Reader, own: Recipe, recipe: Recipe | None) -> _Side:
        key = {
            "source": self.target.source.sha256,
            "files": dict(self.target.files),
            "reader": reader.name,
            "recipe": replace(recipe, folder="").to_json() if recipe else "",
        }
        libraries = ("numpy", "pillow", "torch", "torchvision", "transformers", "timm", "bit-convert")
        return _Side(reader_classifier(reader), self._results(key, own, libraries))

    def _results(self, key: dict[str, Any], own: Recipe, libraries: Sequence[str]) -> Results:
        place = str(self.listing.place.resolve())
        versions = {library: _version(library) for library in libraries}
        files = {} if own.preprocessing else dict(self.target.files)
        recipe = {"own": replace(own, folder="").to_json(), "own_files": files}
        return Results({**key, **recipe, "dataset": place, "versions": versions})

    def _evaluate(self, sides: list[_Side], own: Recipe, recipe: Recipe | None, progress: Progress) -> None:
        images = self.listing.images
        missing = [image for image in images if not all(self._known(side, image) for side in sides)]
        done = len(images) - len(missing)
        size = BATCH_CUDA if any(" on cuda" in reader.name for reader in self.target.readers[:1]) else BATCH
        progress(STEP, done, len(images))
        if not missing:
            return
        with ImageWorkers(own, recipe, len(missing)) as workers:
            for batch in _batches(workers.prepared(missing, ahead=size + workers.count), size):
                self._add(batch, sides)
                done += len(batch)
                progress(STEP, done, len(images))

    def _add(self, batch: Sequence[Prepared], sides: list[_Side]) -> None:
        """Runs what is missing of a batch; a target that cannot be run is given up."""
        self._unreadable |= {each.image: each.unreadable for each in batch if each.unreadable}
        whole = [each for each in batch if not each.unreadable]
        self._classify(sides[0], whole, [each.source for each in whole])
        if len(sides) == 1 or self._reason:
            return
        refused = next((each for each in whole if each.refused), None)
        if refused is not None:
            self._reason = f"its image processor makes nothing of {refused.image.name}: {refused.refused}"
            return
        pixels = [each.source if each.target is None else each.target for each in whole]
        try:
            self._classify(sides[1], whole, pixels)
        except UsageError:
            raise
        except Exception as error:
            self._reason = f"{type(error).__name__}: {one_line(error)}"

    def _classify(self, side: _Side, batch: Sequence[Prepared], pixels: Sequence[Any]) -> None:
        """Runs the images of a batch that are not known, and keeps what they are taken for."""
        pairs = zip(batch, pixels, strict=True)
        needed = [(each, array) for each, array in pairs if self._known(side, each.image) is None]
        found = classify(side.classifier, [array for _, array in needed])
        side.results.add(
            (self._identities[each.image], ImageResult(prediction, each.sha256, each.target is not None))
            for (each, _), prediction in zip(needed, found, strict=True)
        )

    def _known(self, side: _Side, image: LabelledImage) -> ImageResult | None:
        return side.results.of(self._identities[image])

    def _result(self, side: _Side, image: LabelledImage) -> ImageResult:
        """The result for an image that is still what it was. Raises UsageError for another."""
        found = self._known(side, image)
        if found is None or identity_of(image) != self._identities[image]:
            raise UsageError(
                f"{image.path}: was replaced while it was evaluated. Run it again when nothing writes there."
            )
        return found

    def _report(
        self, sides: list[_Side], reader: Reader | None, own: Recipe, recipe: Recipe | None
    ) -> EvaluationReport:
        images = {at: image for at, image in enumerate(self.listing.images) if image not in self._unreadable}
        unreadable = [f"{image.name}: {why}" for image, why in self._unreadable.items()]
        if not images:
            raise UsageError(f"{self.listing.place}: no image can be read; {unreadable[0]}.")
        labels = {at: image.label for at, image in images.items()}
        source = {at: self._result(sides[0], image) for at, image in images.items()}
        ran = not self._reason
        target = {at: self._result(sides[1], image) for at, image in images.items()} if ran else source
        tally = Tally(
            labels,
            {at: result.prediction for at, result in source.items()},
            {at: result.prediction for at, result in target.items()},
        )
        other = sum(result.other_pixels for result in target.values())
        changed = tally.changed_images({at: image.name for at, image in images.items()})
        return EvaluationReport(
            dataset=self.listing.name,
            sha256=_digest((source[at].sha256, labels[at], image.name) for at, image in images.items()),
            images=len(images),
            classes=len(set(labels.values())),
            unreadable=len(unreadable),
            unreadable_files=tuple(unreadable[:LISTED]),
            oracle=self._oracle,
            reader=reader.name if reader else "",
            source=tally.accuracy(tally.source, own.words),
            target=tally.accuracy(tally.target, (recipe or own).words) if ran else None,
            reason=self._reason,
            other_pixels=other,
            same=len(images) - len(tally.changed) if ran else None,
            ties=tally.ties,
            exact=bool(reader and self.target.dtype == "float32" and reader.unit <= U and ran and not other),
            changed=changed,
            names=self._names(changed),
        )

    def _names(self, changed: Iterable[ChangedImage]) -> dict[str, str]:
        """The names of classes that changed images have, as far as they are known."""
        found = {index for each in changed for index in (each.label, each.source_class, each.target_class)}
        known = sorted(index for index in found if index is not None and index < len(self.names.names))
        return {str(index): self.names.names[index] for index in known}


def _digest(lines: Iterable[tuple[str, int, str]]) -> str:
    digest = hashlib.sha256()
    for sha256, label, name in lines:
        digest.update(f"{sha256} {label} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _batches(prepared: Iterator[Prepared], size: int) -> Iterator[list[Prepared]]:
    while batch := list(islice(prepared, size)):
        yield batch


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
