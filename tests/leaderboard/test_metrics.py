"""Every score worked by hand, then its properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from leaderboard.metrics import (
    Score,
    another_mean,
    difference,
    expected_correctness,
    mean,
    means_apart,
    mra,
    network_shares,
    never_fooled,
    on_shared_images,
    persistent,
    score,
    standard_error,
    submodel_accuracies,
    transfer,
    worst_case,
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
    # Student's t with 3 degrees of freedom.
    half = 3.182446 * (11 / 192) ** 0.5
    assert result.value == 0.375
    assert result.low == max(0.0, 0.375 - half)
    assert result.high == min(1.0, 0.375 + half)


def test_a_mean_has_an_interval_over_its_values():
    found = mean(np.array([0.0, 1.0] * 50))
    # Standard deviation 0.5025 over 100 values; t with 99 degrees of freedom.
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - 1.98422 * 0.05025, abs=1e-4)
    single = mean(np.array([0.3]))
    assert (single.low, single.high) == (-np.inf, np.inf)


def test_where_the_mean_of_others_would_lie_by_hand():
    """Mean 1/2; two means of three shares each."""
    found = another_mean(np.array([0.45, 0.5 - 1 / 60, 0.5 + 1 / 15]), 3)
    variance = (0.05**2 + (1 / 60) ** 2 + (1 / 15) ** 2) / 2
    # Student's t with 2 degrees of freedom.
    half = 4.302653 * (2 * variance / 3) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    one = another_mean(np.array([0.45, 0.5 - 1 / 60, 0.5 + 1 / 15]), 1)
    # Of one more the variance is three times as large, and so the sum twice.
    assert one.high - one.value == pytest.approx(2**0.5 * half)
    assert another_mean(np.array([0.0, 1.0]), 2) == Score(0.5, 0.0, 1.0)
    assert another_mean(np.array([0.3]), 1) == Score(0.3, 0.0, 1.0)


def test_what_a_network_adds_attacked_and_answering_by_hand():
    """Rows 0.3 and 0.7, columns 0.4 and 0.6, mean 1/2."""
    shares = network_shares(np.array([[0.2, 0.4], [0.6, 0.8]]))
    assert shares == pytest.approx([0.3 + 0.4 - 0.5, 0.7 + 0.6 - 0.5])


def test_intervals_over_networks_hold_where_answers_vary_more_than_attacks():
    rng = np.random.default_rng(0)
    attacked, answering = rng.normal(0, 0.01, (4000, 2, 4)), rng.normal(0, 0.02, (4000, 2, 4))
    left = 0.5 + attacked[..., :, np.newaxis] + answering[..., np.newaxis, :]
    within = [
        found.low <= others.mean() <= found.high
        for own, others in left
        for found in [another_mean(network_shares(own), 4)]
    ]
    assert np.mean(within) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


def test_the_difference_of_two_means_by_hand_and_by_welch():
    first, second = np.array([0.2, 0.3, 0.7, 0.4]), np.array([0.1, 0.15])
    found = means_apart(first, second)
    theirs = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    expected = (0.275, theirs.low, theirs.high)
    assert (found.value, found.low, found.high) == pytest.approx(expected)
    alone = means_apart(first, np.array([0.2]))
    assert (alone.low, alone.high) == (-1, 1)


def test_nineteen_of_twenty_other_means_lie_where_they_should():
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.5, 0.02, (4000, 2, 4))
    within = [
        found.low <= others.mean() <= found.high
        for own, others in drawn
        for found in [another_mean(own, 4)]
    ]
    # Four standard errors of a share of 4,000.
    assert np.mean(within) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


def test_the_standard_error_is_over_images():
    """s = (1, 1/2, 0, 0): sample variance 11/48."""
    assert standard_error(CORRECT) == pytest.approx((11 / 192) ** 0.5)
    assert standard_error(CORRECT[:, :1]) == 0


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
    images, seeds = np.array([0.75, 0.25, 0.0, 0.0]).var(ddof=1) / 4, 1 / 64
    freedom = (images + seeds) ** 2 / (images**2 / 3 + seeds**2 / 1)
    assert result.value == 0.25
    half = stats.t.ppf(0.975, freedom) * (images + seeds) ** 0.5
    assert result.high == pytest.approx(min(1, 0.25 + half))


def test_where_seeds_differ_and_images_do_not_the_interval_is_the_t_interval_over_seeds():
    """5, 5 and 6 of 10 right on every image: standard error 1/30, two degrees of freedom."""
    seeds = [np.repeat(np.arange(10)[:, None] < right, 1000, axis=1) for right in (5, 5, 6)]
    result = score(seeds)
    assert result.value == pytest.approx(16 / 30)
    assert result.low == pytest.approx(16 / 30 - 4.302653 / 30, abs=1e-6)
    result = difference(dict(enumerate(seeds)), dict.fromkeys(range(3), seeds[0]))
    assert result.high == pytest.approx(1 / 30 + 4.302653 / 30, abs=1e-6)


def test_seeds_that_move_together_do_not_widen_their_difference():
    """2 and 1 of 2 right at the first seed, 1 and 0 at the second: a difference of 1/2 in both."""
    none, one, both = (np.repeat(np.arange(2)[:, None] < right, 100, axis=1) for right in range(3))
    bound = 1 - 0.05 ** (1 / 100)
    first, second = {0: both, 1: one}, {0: one, 1: none}
    assert difference(first, second) == Score(0.5, 0.5 - bound, 0.5 + bound)
    # In whatever order they were measured; other seeds are not paired.
    assert difference({1: one, 0: both}, second) == difference(first, second)
    assert difference(first, {2: one, 3: none}).low == -1


def test_pairs_that_are_all_alike_get_the_bound_whatever_their_value():
    """Nine of ten submodels right on all images: 0.9 has no exact mean in binary."""
    nine, none = (np.repeat(np.arange(10)[:, None] < k, 1000, axis=1) for k in (9, 0))
    bound = 1 - 0.05 ** (1 / 1000)
    result = difference({0: nine}, {0: none})
    assert (result.low, result.high) == pytest.approx((0.9 - bound, 0.9 + bound))
    result = score([nine])
    assert (result.low, result.high) == pytest.approx((0.9 - bound, 0.9 + bound))


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


# Two attacks on two submodels and three images: s = (1, 1/2, 0) and (1/2, 1, 1/2).
FIRST = np.array([[1, 1, 0], [1, 0, 0]], dtype=bool)
SECOND = np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)


def test_worst_case_by_hand():
    """Image 0 from the second attack, images 1 and 2 from the first."""
    combined = worst_case([FIRST, SECOND])
    assert combined.tolist() == [[False, True, False], [True, False, False]]
    assert mra(combined) == pytest.approx(1 / 3)


def test_transfer_and_the_decomposition_by_hand():
    """T = ((0, 1/2), (1, 1/4)): D = 1/8, O = 3/4, E[MRA] = (1/2) (1/8) + (1/2) (3/4) = 7/16."""
    correct = np.zeros((2, 2, 4), dtype=bool)
    correct[0, 1, :2] = correct[1, 0] = correct[1, 1, :1] = True
    result = transfer(correct)
    assert result.accuracies.tolist() == [[0.0, 0.5], [1.0, 0.25]]
    assert (result.own, result.others, result.expected_mra) == (0.125, 0.75, 0.4375)


def test_transfer_of_a_single_network_is_its_own_robustness():
    result = transfer(np.array([[[True, False]]]))
    assert result.expected_mra == result.own == 0.5
    assert np.isnan(result.others)


@given(arrays(bool, (3, 3, 5)))
def test_the_decomposition_is_the_mean_over_surrogates(correct):
    assert transfer(correct).expected_mra == pytest.approx(correct.mean())


def test_persistent_attacker_by_hand():
    """s = (1, 1/2, 0, 0): k = 2 gives (1 + 1/4) / 4; the limit is 1/4."""
    assert persistent(CORRECT, 1) == 0.375
    assert persistent(CORRECT, 2) == 0.3125
    assert never_fooled(CORRECT) == 0.25


def test_paired_difference_by_hand():
    """s - s' = (1/2, -1/2, -1/2): mean -1/6, sample variance 1/3, standard error 1/3."""
    result = difference({0: FIRST}, {0: SECOND})
    assert result.value == pytest.approx(-1 / 6)
    # Student's t with 2 degrees of freedom.
    assert result.high == pytest.approx(min(1, -1 / 6 + 4.302653 / 3), abs=1e-6)
    assert result.low == pytest.approx(max(-1, -1 / 6 - 4.302653 / 3), abs=1e-6)


def test_seeds_of_one_side_widen_a_paired_difference():
    """Two seeds of one side with MRAs 1/2 and 1/3: variance 1/72, over 2 seeds 1/144."""
    many = 50
    first, second = np.tile(FIRST, many), np.tile(SECOND, many)
    other = np.tile(np.array([[1, 0, 0], [1, 0, 0]], dtype=bool), many)
    pairs = (expected_correctness(first) + expected_correctness(other)) / 2
    images = (pairs - expected_correctness(second)).var(ddof=1) / (3 * many)
    freedom = (images + 1 / 144) ** 2 / (images**2 / (3 * many - 1) + (1 / 144) ** 2 / 1)
    result = difference({0: first, 1: other}, {0: second})
    half = stats.t.ppf(0.975, freedom) * (images + 1 / 144) ** 0.5
    assert result.high == pytest.approx(min(1, result.value + half), abs=1e-6)


def test_different_images_cannot_be_paired():
    with pytest.raises(ValueError, match="same images"):
        difference({0: FIRST}, {0: CORRECT})


@given(matrices, st.integers(1, 20))
def test_more_tries_never_help_the_defense(correct, tries):
    assert persistent(correct, tries + 1) <= persistent(correct, tries) + 1e-12
    assert never_fooled(correct) <= persistent(correct, tries) + 1e-12


@given(st.lists(arrays(bool, (3, 6)), min_size=1, max_size=5), st.permutations(range(3)))
def test_the_worst_case_is_below_every_attack_and_blind_to_the_order_of_submodels(tried, order):
    combined = mra(worst_case(tried))
    assert all(combined <= mra(correct) + 1e-12 for correct in tried)
    assert mra(worst_case([correct[order] for correct in tried])) == pytest.approx(combined)


def test_shared_images_are_the_first_that_all_have():
    few, many = np.ones((2, 3), dtype=bool), np.arange(10).reshape(2, 5) > 4
    cut = on_shared_images([few, many])
    assert [part.shape for part in cut] == [(2, 3), (2, 3)]
    assert (cut[1] == many[:, :3]).all()
    assert on_shared_images([]) == []
