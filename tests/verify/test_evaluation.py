"""What is counted on labelled images: classes, margins and ties of logits, whatever these are."""

from weakref import WeakSet

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint
from tests.verify.support import MemorySource, TorchModel
from verify.evaluation import Prediction, Tally, classify, oracle_classifier, predictions, reader_classifier
from verify.oracles.numpy import NumpyOracle

LOGITS = np.array([[0, 3, 1, 2, -1, -7], [1, 1, 1, 1, 1, 1], [5, 4.999, 0, 0, 0, 0]], np.float32)


def test_classes_margins_and_ties_of_logits():
    first, equal, near = predictions(LOGITS)
    assert first == Prediction((1, 3, 2, 0, 4), 1.0, 10.0)
    assert not first.is_tie
    assert (equal.classes, equal.margin, equal.is_tie) == ((0, 1, 2, 3, 4), 0.0, True)
    assert near.is_tie


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_class(value):
    logits = LOGITS.copy()
    logits[0, 4] = value
    broken, *others = predictions(logits)
    assert (broken.first, broken.margin, broken.is_tie) == (None, None, False)
    assert others == predictions(LOGITS)[1:]


def test_one_class_has_no_margin():
    assert predictions(np.ones((1, 1), np.float32)) == [Prediction((0,), None, 0.0)]


def test_a_tally_counts_what_a_person_would():
    labels = {0: 1, 1: 0, 2: 5}
    source = dict(enumerate(predictions(LOGITS)))
    target = source | {2: Prediction((1, 0, 2, 3, 4), 0.5, 5.0)}
    tally = Tally(labels, source, target)
    assert (tally.accuracy(source, "").top1, tally.accuracy(source, "").top5) == (2, 2)
    assert (tally.changed, tally.ties) == ([2], 1)
    (changed,) = tally.changed_images({2: "x.png"})
    assert (changed.file, changed.label, changed.source_class, changed.target_class) == ("x.png", 5, 0, 1)
    assert (changed.source_margin, changed.target_margin) == (0.0009999, 0.5)


def test_images_of_several_sizes_get_the_classes_that_each_gets_alone():
    tensors = make_checkpoint((1, 1), 32, 6, mids=(32, 64))
    random = np.random.default_rng(0)
    images = [random.standard_normal((3, *size), np.float32) for size in ((40, 48), (33, 40), (40, 48), (48, 40))]
    oracle = oracle_classifier(NumpyOracle(MemorySource(tensors), float32_runs=0))
    assert oracle(images).dtype == np.float32
    for classifier in (oracle, reader_classifier(TorchModel(tensors))):
        together = classify(classifier, images)
        alone = [prediction for image in images for prediction in classify(classifier, [image])]
        assert [each.classes for each in together] == [each.classes for each in alone]
        assert [each.margin for each in together] == pytest.approx([each.margin for each in alone], rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError("std::bad_alloc")],
)
def test_where_memory_is_short_fewer_run_at_once(error):
    sizes = []

    def classifier(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise error
        return np.stack([image[0, 0] for image in images])

    images = [np.full((3, 1, 6), row, np.float32) for row in LOGITS] * 3
    assert classify(classifier, images) == predictions(np.concatenate([LOGITS] * 3))
    assert max(sizes) == 9
    assert sum(size for size in sizes if size <= 2) == 9


class Room:
    """Memory that something computed takes, until it is let go."""


def test_what_found_no_room_is_let_go_before_fewer_are_run():
    taken = WeakSet()

    def classifier(images):
        assert not taken
        room = Room()
        taken.add(room)
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory")
        return np.stack([image[0, 0] for image in images])

    images = [np.full((3, 1, 6), row, np.float32) for row in LOGITS]
    assert classify(classifier, images) == predictions(LOGITS)


def test_other_errors_are_raised():
    def classifier(images):
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match="no kernel"):
        classify(classifier, [np.zeros((3, 9, 9), np.float32)] * 2)
