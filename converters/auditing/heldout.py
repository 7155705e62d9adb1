"""The held-out images of a variant: the classes that the checkpoint and the converted folder give what neither saw.

images, labels → NumPy oracle on the checkpoint; the folder's declared reader → Tally → HeldOutReport
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import numpy.typing as npt

from converters.auditing.evaluation.recipes import google_preparer
from converters.auditing.target import Folder
from converters.catalogue.variants import Preprocessing
from verify.compare import U
from verify.evaluation import Classifier, Prediction, Tally, classify, oracle_classifier, reader_classifier
from verify.oracles.numpy import NumpyOracle
from verify.report.parity import HeldOutReport

DATA = "digits/heldout.npz"
BATCH = 60
"""Images that run together."""
_truths: dict[tuple[object, ...], dict[int, Prediction]] = {}
"""The classes that a checkpoint's network gives the images, by its digest and all else that they depend on: of several
folders that are held against one checkpoint they are computed once."""


def held_out(target: Folder) -> HeldOutReport | None:
    """Both on the images that ship with the variant; None where none do, or where the folder cannot be run.

    Images are prepared as the catalogue says, whatever the folder's files say: those are compared by themselves.
    """
    variant = target.plan.variant
    if variant is None or not variant.embedded or target.misleading or not target.readers:
        return None
    images, labels = _images(variant.preprocessing)
    reader = target.readers[0]
    try:
        found = _predictions(reader_classifier(reader), images)
    except Exception:  # the audit has run this reader, and says what is wrong with it
        return None
    finally:
        reader.close()
    truth = _truth(target, variant.preprocessing, images)
    tally = Tally(dict(enumerate(labels)), truth, found)
    return HeldOutReport(
        images=len(labels),
        same=len(labels) - len(tally.changed),
        source_right=tally.accuracy(truth, "").top1,
        target_right=tally.accuracy(found, "").top1,
        label=labels[0],
        source_class=_class(truth[0]),
        target_class=_class(found[0]),
        exact=target.dtype == "float32" and reader.unit <= U,
    )


def _truth(target: Folder, recipe: Preprocessing, images: npt.NDArray[np.float32]) -> dict[int, Prediction]:
    source, padding = target.source, target.plan.pool_padding
    key = source.sha256, source.scheme, padding, recipe.in_words
    if key not in _truths:
        oracle = NumpyOracle(source, float32_runs=0, pool_padding=padding)
        _truths[key] = _predictions(oracle_classifier(oracle, np.float64), images)
    return _truths[key]


def _predictions(classifier: Classifier, images: npt.NDArray[np.float32]) -> dict[int, Prediction]:
    batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return dict(enumerate(prediction for batch in batches for prediction in classify(classifier, list(batch))))


def _class(prediction: Prediction) -> int:
    """The class; one that there is not, where a logit is not finite."""
    return -1 if prediction.first is None else prediction.first


def _images(recipe: Preprocessing) -> tuple[npt.NDArray[np.float32], list[int]]:
    """The held-out digits as the network takes them, and what they show."""
    from PIL import Image

    with files("converters.catalogue").joinpath(DATA).open("rb") as file, np.load(file, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    prepare = google_preparer(recipe)
    return np.stack([prepare(Image.fromarray(image)) for image in images]), [int(label) for label in labels]
