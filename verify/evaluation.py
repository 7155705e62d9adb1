"""The evaluation of a source and a target on labelled images: the class that each gives, and how often that is right.

images → a classifier, of oracle or reader → ``classify()`` → Prediction of each → ``Tally`` → EvaluationReport
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.numpy import NumpyOracle
from verify.protocols import LogitsReader, Reader
from verify.report.parity import AccuracyReport, ChangedImage, figure
from verify.shortage import is_short_of_memory

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.float32]
"""One image, (3, height, width)."""
Classifier = Callable[[Sequence[Pixels]], Array]
"""Images of any sizes → (images, classes) logits."""

TOP = 5
"""Classes of an image that are kept, those with the largest logits."""
TIE = 2.0**-10
"""The margin, as a share of an image's range of logits, up to which float32 rounding may decide its class. Rounding
moves logits by some millionths of their range, a hundred times less."""
LISTED = 20
"""Changed images, and unreadable files, that a report names."""


@dataclass(frozen=True)
class Prediction:
    """The classes of an image with the largest logits."""

    classes: tuple[int, ...]
    """At most ``TOP``, the largest logit first; none where a logit is not finite."""
    margin: float | None = None
    """The difference of the two largest logits; None of one class alone."""
    range: float = 0.0
    """The difference of the largest and the smallest logit."""

    @property
    def first(self) -> int | None:
        return self.classes[0] if self.classes else None

    @property
    def is_tie(self) -> bool:
        """Whether rounding may decide between the first two classes."""
        return self.margin is not None and self.margin <= TIE * self.range


def classify(classifier: Classifier, images: Sequence[Pixels]) -> list[Prediction]:
    """The prediction for each image; where memory is short, half of them at a time."""
    if not images:
        return []
    try:
        logits = classifier(images)
    except (MemoryError, RuntimeError) as error:
        if len(images) == 1 or not is_short_of_memory(error):
            raise
    else:
        return predictions(logits)
    half = len(images) // 2  # out here, where the error is gone, and with it all that was computed until then
    return [*classify(classifier, images[:half]), *classify(classifier, images[half:])]


def predictions(logits: Array) -> list[Prediction]:
    """The predictions of (images, classes) logits."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    return [_prediction(row, classes) for row, classes in zip(logits.astype(np.float64), order, strict=True)]


def _prediction(logits: Array, classes: Array) -> Prediction:
    if not np.isfinite(logits).all():
        return Prediction(())
    margin = float(logits[classes[0]] - logits[classes[1]]) if len(classes) > 1 else None
    return Prediction(tuple(map(int, classes)), margin, float(logits[classes[0]] - logits.min()))


def oracle_classifier(oracle: NumpyOracle, dtype: type[np.floating[Any]] = np.float32) -> Classifier:
    """Google's arithmetic on the source's own tensors, computed in ``dtype``."""

    def logits(images: Sequence[Pixels]) -> Array:
        return oracle.forward(images, dtype)["logits"]

    return logits


def reader_classifier(reader: Reader) -> Classifier:
    """A library's model of the target; images of one size run at once."""

    def run(images: Array) -> Array:
        found = reader.logits(images) if isinstance(reader, LogitsReader) else reader.run(images)["logits"]
        return np.asarray(found)

    def logits(images: Sequence[Pixels]) -> Array:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(image.shape, []).append(index)
        found: dict[int, Array] = {}
        for members in groups.values():
            found |= dict(zip(members, run(np.stack([images[index] for index in members])), strict=True))
        return np.stack([found[index] for index in range(len(images))])

    return logits


@dataclass(frozen=True)
class Tally:
    """The labels of images, and what source and target take them for, each by the image's place in the list."""

    labels: Mapping[int, int]
    source: Mapping[int, Prediction]
    target: Mapping[int, Prediction]

    @property
    def changed(self) -> list[int]:
        """The images that the target gives another class than the source."""
        return [image for image in self.labels if self.source[image].first != self.target[image].first]

    @property
    def ties(self) -> int:
        """The number of changed images between whose two classes rounding may decide."""
        return sum(self.source[image].is_tie for image in self.changed)

    def accuracy(self, found: Mapping[int, Prediction], preprocessing: str) -> AccuracyReport:
        """The number of images of which the label is the first class, or among the first five."""
        top1 = sum(found[image].first == label for image, label in self.labels.items())
        top5 = sum(label in found[image].classes for image, label in self.labels.items())
        return AccuracyReport(preprocessing, top1, top5)

    def changed_images(self, names: Mapping[int, str]) -> tuple[ChangedImage, ...]:
        """The first changed images."""
        return tuple(self._changed_image(image, names[image]) for image in self.changed[:LISTED])

    def _changed_image(self, image: int, name: str) -> ChangedImage:
        source, target = self.source[image], self.target[image]
        return ChangedImage(name, self.labels[image], source.first, _margin(source), target.first, _margin(target))


def _margin(prediction: Prediction) -> float | None:
    return None if prediction.margin is None else figure(prediction.margin)
