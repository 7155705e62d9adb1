"""The rules on figures worked out by hand."""

import math

import numpy as np
import pytest

from verify import compare
from verify.compare import FACTOR, U

TRUTH = np.array([3.0, 4.0])


def test_trunk_limit_is_the_factor_times_the_largest_run_error():
    runs = [np.array([3.0, 4.0], np.float32), np.array([3.5, 4.0], np.float32), np.array([3.0, 3.75], np.float32)]
    floors = compare.rounding(TRUTH, runs)
    assert floors == (0.5, 0.5)
    at_limit = compare.trunk("root", 0, np.array([3.0, 4.0 + FACTOR / 2], np.float32), TRUTH, floors)
    assert (at_limit.error, at_limit.limit, at_limit.ratio, at_limit.passed) == (FACTOR / 2, FACTOR / 2, FACTOR, True)
    above = compare.trunk("root", 0, np.array([3.0, 6.5], np.float32), TRUTH, floors)
    assert (above.error, above.ratio, above.passed, above.max_abs_error) == (2.5, 5.0, False, 2.5)
    assert above.detail == "at [1]: 6.5, oracle 4"


def test_trunk_floor_is_at_least_the_rounding_of_the_norm():
    exact = compare.trunk("root", 0, TRUTH, TRUTH, (0.0, 0.0))
    assert exact.limit == FACTOR * U * 5


def test_zero_floor_passes_equal_values_only():
    zeros = np.zeros(2)
    assert compare.trunk("features", 0, zeros, zeros, (0.0, 0.0)).passed
    assert compare.trunk("features", 0, zeros, zeros, (0.0, 0.0)).ratio == 0
    other = compare.trunk("features", 0, np.array([0, 1e-30]), zeros, (0.0, 0.0))
    assert not other.passed
    assert other.ratio == math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(bad):
    result = compare.trunk("root", 0, np.array([3.0, bad]), TRUTH, (0.5, 0.5))
    assert not result.passed
    assert "at [1]" in result.detail


def test_nan_floor_lets_nothing_pass():
    floors = compare.rounding(TRUTH, [np.array([3.0, np.nan], np.float32), np.array([3.0, 4.0], np.float32)])
    assert not compare.trunk("root", 0, TRUTH, TRUTH, floors).passed
    assert compare.useless_floor(TRUTH, floors[0])


def test_another_shape_fails():
    result = compare.trunk("norm", 1, np.zeros((2, 1)), TRUTH, (0.5, 0.5))
    assert not result.passed
    assert result.detail == "shape (2, 1), not (2,)"


def logits(truth, runs=None, scale=(2.0, 2.0), propagated=(0.0, 0.0)):
    truth = np.array(truth)
    return compare.Logits(truth, np.array([truth] if runs is None else runs), np.array(scale), np.array(propagated))


def test_head_limit_of_each_class():
    own = compare.OwnLogits(np.array([1.0, 8.0]), np.array([2.0, 16.0]), features=24)
    limit = 5 * U * 2
    result = compare.head(0, np.array([1.0 + limit, 8.0]), logits([1.0, 8.0]), own)
    assert (result.name, result.error, result.limit, result.passed) == ("logits", limit, limit, True)
    result = compare.head(0, np.array([1.0 + 1.5 * limit, 8.0]), logits([1.0, 8.0]), own)
    assert not result.passed
    assert result.ratio == 1.5 * FACTOR
    assert result.detail.startswith("logit 0 is 1.0000")
    # The same error is within the limit of the larger logit.
    assert compare.head(0, np.array([1.0, 8.0 + 1.5 * limit]), logits([1.0, 8.0]), own).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_head_names_the_logit_that_is_not_finite(bad):
    own = compare.OwnLogits(np.array([1.0, 8.0]), np.array([2.0, 16.0]), features=24)
    result = compare.head(0, np.array([1.0, bad]), logits([1.0, 8.0]), own)
    assert not result.passed
    assert result.detail.startswith("logit 1 is")


def test_head_of_zeros_passes_zeros_only():
    own = compare.OwnLogits(np.zeros(2), np.zeros(2), features=24)
    assert compare.head(0, np.zeros(2), logits([0.0, 0.0]), own).passed
    assert not compare.head(0, np.array([0.0, 1e-30]), logits([0.0, 0.0]), own).passed


def test_limit_of_logits_alone():
    """s² = mean (z_k − z)² + propagated + u² scale², per class: (2 + 7 + 0) + (0 + 16 + 0) = 25."""
    oracle = logits([0.0, 0.0], runs=[[2.0, 0.0], [0.0, 0.0]], scale=(0.0, 0.0), propagated=(7.0, 16.0))
    assert compare.logits_alone(0, np.array([5 * FACTOR, 0.0]), oracle).passed
    assert compare.logits_alone(0, np.array([5 * FACTOR, 0.0]), oracle).limit == 5 * FACTOR
    assert not compare.logits_alone(0, np.array([5 * FACTOR, 1.0]), oracle).passed
    rounding = logits([0.0, 0.0], scale=(3.0, 4.0))
    assert compare.logits_alone(0, np.array([0.0, 0.0]), rounding).limit == FACTOR * 5 * U


def test_useless_floor_is_above_the_root_of_the_rounding():
    assert not compare.useless_floor(TRUTH, 5 * 2.0**-12)
    assert compare.useless_floor(TRUTH, 5.01 * 2.0**-12)
    assert not compare.useless_floor(np.zeros(2), 0.0)


def test_stored_values_are_compared_bit_for_bit():
    value = np.array([[1.0, -0.0], [np.nan, 4.0]], np.float32)
    assert compare.stored_misfit(value, value.copy()) == ""
    assert compare.stored_misfit(value.T, np.asfortranarray(value.T)) == ""
    zero = value.copy()
    zero[0, 1] = 0.0
    assert compare.stored_misfit(value, zero) == "differs at [0, 1]: 0.0 stored, -0.0 expected (1 of 4 values differ)"
    next_up = value.copy()
    next_up[1, 1] = np.nextafter(np.float32(4), np.float32(5))
    assert compare.stored_misfit(value, next_up).startswith("differs at [1, 1]: 4.0000005 stored, 4.0 expected")
    assert compare.stored_misfit(value, value[0]) == "has shape (2,), not (2, 2)"
    assert compare.stored_misfit(value, value.astype(np.float64)) == "holds float64, not float32"
    assert compare.stored_misfit(value, np.zeros(value.shape, np.uint16)) == "holds bfloat16, not float32"
    assert compare.stored_misfit(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == ""
