"""Every score worked by hand, then its properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from leaderboard.metrics import (
    Score,
    expected_correctness,
    mra,
    score,
    submodel_accuracies,
)

# Two submodels, four images.
CORRECT = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)

matrices = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def test_expected_correctness_by_hand():
    assert expected_correctness(CORRECT).tolist() == [1.0, 0.5, 0.0, 0.0]


def test_submodel_accuracies_by_hand():
    assert submodel_accuracies(CORRECT).tolist() == [0.5, 0.25]


def test_mra_by_hand():
    """Eq. 6: (1/2) (2/4 + 1/4)."""
    assert mra(CORRECT) == 0.375


def test_interval_by_hand():
    """s = (1, 1/2, 0, 0): mean 3/8, sample variance 11/48, standard error sqrt(11/192)."""
    result = score([CORRECT])
    half = 1.959964 * (11 / 192) ** 0.5
    assert result.value == 0.375
    assert result.low == max(0.0, 0.375 - half)
    assert result.high == pytest.approx(0.375 + half, abs=1e-6)


def test_submodels_that_agree_narrow_nothing():
    """Ten copies of one submodel are one submodel: the unit of replication is the image."""
    one = CORRECT[:1]
    assert score([np.repeat(one, 10, axis=0)]) == score([one])


def test_all_wrong_and_all_right_get_the_exact_binomial_bound():
    images = 100
    bound = 1 - 0.05 ** (1 / images)
    assert bound == pytest.approx(0.0295, abs=1e-4)
    assert score([np.zeros((3, images), bool)]) == Score(0.0, 0.0, bound)
    assert score([np.ones((3, images), bool)]) == Score(1.0, 1.0 - bound, 1.0)


def test_seeds_are_averaged_and_their_spread_widens_the_interval():
    """MRAs 3/8 and 1/8: mean 1/4, between-seed variance 1/32, over 2 seeds 1/64."""
    other = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    result = score([CORRECT, other])
    averaged = np.array([0.75, 0.25, 0.0, 0.0])
    half = 1.959964 * (averaged.var(ddof=1) / 4 + 1 / 64) ** 0.5
    assert result.value == 0.25
    assert result.high == pytest.approx(0.25 + half, abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [[], [np.zeros((2, 3), bool), np.zeros((2, 4), bool)], [np.zeros((2, 0), bool)]]
)
def test_scores_of_nothing_or_of_different_images_are_refused(wrong):
    with pytest.raises(ValueError, match="a score needs"):
        score(wrong)


@given(matrices)
def test_means_agree_and_the_interval_holds_the_value(correct):
    result = score([correct])
    assert result.value == pytest.approx(submodel_accuracies(correct).mean())
    assert result.value == pytest.approx(expected_correctness(correct).mean())
    assert 0 <= result.low <= result.value <= result.high <= 1


@given(matrices, st.randoms(use_true_random=False))
def test_the_order_of_submodels_and_images_changes_no_score(correct, random):
    rows, columns = (random.sample(range(k), k) for k in correct.shape)
    shuffled = score([correct[rows][:, columns]])
    result = score([correct])
    assert shuffled.value == pytest.approx(result.value)
    assert shuffled.high == pytest.approx(result.high)
