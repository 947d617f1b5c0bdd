"""Every score worked by hand, then its properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from randomized_defense_bench.metrics import (
    EQUALS,
    Answers,
    Score,
    another_mean,
    best_member,
    difference,
    mean,
    on_shared_images,
    persistent,
    score,
    shared_difference,
    standard_error,
    worst_case,
)

# Two members, four images: s = (1, 1/2, 0, 0).
CORRECT = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
TWO = Answers(CORRECT)

matrices = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def all_alike(right, images, of=10):
    """The same `right` of so many members answer every image correctly."""
    return Answers(np.repeat(np.arange(of)[:, np.newaxis] < right, images, axis=1))


def korn_graubard(value, half):
    """Clopper and Pearson's interval for as many images as have this half-width."""
    images = value * (1 - value) * (stats.norm.ppf(0.975) / half) ** 2
    right, wrong = value * images, (1 - value) * images
    low = stats.beta.ppf(0.025, right, wrong + 1)
    return pytest.approx((value, low, stats.beta.ppf(0.975, right + 1, wrong)))


def parts(score):
    return score.value, score.low, score.high


def test_s_by_hand():
    assert TWO.s.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert Answers(CORRECT, (0.25, 0.75)).s.tolist() == [1.0, 0.25, 0.0, 0.0]
    # Two draws of each of two members.
    drawn = Answers(np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool), (0.25, 0.75), draws=2)
    assert drawn.s.tolist() == [0.25, 0.25 / 2 + 0.75 / 2]
    first = Answers(CORRECT, selecting=np.array([0.1, 0.2, 0.3, 0.4])).first(2)
    assert (first.images, first.selected.tolist()) == (2, [0.1, 0.2])


def test_an_interval_by_hand():
    """Mean 3/8, sample variance 11/48, standard error sqrt(11/192); t with 3 degrees of freedom."""
    found = score([TWO])
    assert parts(found) == korn_graubard(3 / 8, 3.18244631 * (11 / 192) ** 0.5)
    assert standard_error(TWO) == pytest.approx((11 / 192) ** 0.5)
    assert standard_error(TWO.first(1)) == 0


def test_of_one_network_it_is_the_exact_binomial_interval_for_the_images_that_are_as_uncertain():
    """30 of 100: sample variance 0.21 * 100/99; t with 99 degrees of freedom."""
    found = score([Answers(np.arange(100)[np.newaxis] < 30)])
    assert parts(found) == korn_graubard(0.3, 1.984217 * (0.21 / 99) ** 0.5)
    binomial = stats.binomtest(30, 100).proportion_ci()
    assert (found.low, found.high) == pytest.approx((binomial.low, binomial.high), abs=0.003)


def test_images_that_share_a_draw_are_a_cluster():
    """Sums of deviations from 1/2 in pairs: 1, -1, 1, -1, 0; variance 5/4 * 4 / 100."""
    images = np.array([[1, 1, 0, 0, 1, 1, 0, 0, 1, 0]], bool)
    found = score([Answers(images, block=2)])
    assert parts(found) == korn_graubard(0.5, stats.t.ppf(0.975, 4) * (1.25 * 4 / 100) ** 0.5)
    # One cluster says nothing of others.
    assert parts(score([Answers(images, block=10)])) == (0.5, 0.0, 1.0)


def test_draws_that_many_images_share_widen_the_interval():
    """Means over images 1/4, 3/4, 1/2 of three draws: variance 1/16, of their mean 1/48."""
    correct = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]], bool)
    s = np.array([1, 2 / 3, 1 / 3, 0])
    images = stats.t.ppf(0.975, 3) ** 2 * s.var(ddof=1) / 4
    draws = stats.t.ppf(0.975, 2) ** 2 / 48
    found = score([Answers(correct, draws=3)])
    assert parts(found) == korn_graubard(0.5, (images + draws) ** 0.5)
    assert score([Answers(correct)]).high < found.high


def test_draws_of_members_count_by_their_probabilities():
    """Means 1, 0 and 1, 1/2: variances of the mean 1/4 and 1/16, times 1/16 and 9/16."""
    correct = np.array([[1, 1], [0, 0], [1, 1], [0, 1]], bool)
    found = Answers(correct, (0.25, 0.75), draws=2).shared_variance
    first, second = 1 / 4 / 16, 9 / 16 / 16
    assert found.value == pytest.approx(first + second)
    # Of one degree of freedom each.
    assert found.freedom == pytest.approx((first + second) ** 2 / (first**2 + second**2))


@pytest.mark.parametrize("images", [1, 100])
def test_all_wrong_and_all_right_get_the_exact_binomial_bound(images):
    bound = stats.binomtest(0, images).proportion_ci().high if images > 1 else 1
    none, every = (score([all_alike(right, images)]) for right in (0, 10))
    assert parts(none) == pytest.approx((0, 0, bound))
    assert parts(every) == pytest.approx((1, 1 - bound, 1) if images > 1 else (1, 0, 1))


def test_submodels_that_agree_narrow_nothing():
    """Ten copies of one submodel are one submodel: the unit of replication is the image."""
    one = CORRECT[:1]
    assert score([Answers(np.repeat(one, 10, axis=0))]) == score([Answers(one)])


def test_seeds_are_averaged_and_their_spread_widens_the_interval():
    """MRAs 3/8 and 1/8: mean 1/4, between-seed variance 1/32, over 2 seeds 1/64."""
    other = Answers(np.array([[1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool))
    images = np.array([0.75, 0.25, 0.0, 0.0]).var(ddof=1) / 4
    half = (stats.t.ppf(0.975, 3) ** 2 * images + stats.t.ppf(0.975, 1) ** 2 / 64) ** 0.5
    assert parts(score([TWO, other])) == korn_graubard(0.25, half)


def test_where_seeds_differ_and_images_do_not_the_interval_is_the_t_interval_over_seeds():
    """5, 5 and 6 of 10 right on every image: standard error 1/30, two degrees of freedom."""
    seeds = [all_alike(right, 1000) for right in (5, 5, 6)]
    half = 4.302653 / 30
    assert parts(score(seeds)) == korn_graubard(16 / 30, half)
    found = difference(dict(enumerate(seeds)), dict.fromkeys(range(3), seeds[0]))
    assert found.high == pytest.approx(1 / 30 + half, abs=1e-4)


@pytest.mark.parametrize("wrong", [[], [TWO, TWO.first(3)], [TWO.first(0)]])
def test_scores_of_nothing_or_of_different_images_are_refused(wrong):
    with pytest.raises(ValueError, match="a score needs"):
        score(wrong)


@given(matrices, st.randoms(use_true_random=False))
def test_a_score_is_in_its_interval_and_blind_to_the_order_of_submodels_and_images(correct, random):
    found = score([Answers(correct)])
    assert found.value == pytest.approx(correct.mean())
    assert 0 <= found.low <= found.value <= found.high <= 1
    rows, columns = (random.sample(range(k), k) for k in correct.shape)
    assert parts(score([Answers(correct[rows][:, columns])])) == pytest.approx(parts(found))


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


# Two attacks on two members and three images: s = (1, 1/2, 0) and (1/2, 1, 1/2).
FIRST = Answers(np.array([[1, 1, 0], [1, 0, 0]], dtype=bool))
SECOND = Answers(np.array([[0, 1, 1], [1, 1, 0]], dtype=bool))


def test_a_paired_difference_by_hand():
    """s - s' = (1/2, -1/2, -1/2): sample variance 1/3, of the mean 1/9; and 2/9 for a pair more."""
    found = difference({0: FIRST}, {0: SECOND})
    assert parts(found) == pytest.approx((-1 / 6, -1, 1))
    # A hundred times as many images.
    first, second = (Answers(np.tile(side.correct, 100)) for side in (FIRST, SECOND))
    variance = (2 / 9 * 300 / 299 + 2 / 300) / 300
    half = stats.t.ppf(0.975, 299) * variance**0.5
    found = difference({0: first}, {0: second})
    assert parts(found) == pytest.approx((-1 / 6, -1 / 6 - half, -1 / 6 + half))


def test_a_paired_difference_of_blocks_and_of_draws_by_hand():
    """Differences 1, 1, 0, 0 in pairs: sums of deviations 1 and -1, variance 2 * 2 / 16."""
    right = np.array([[1, 1, 0, 0]], bool)
    wrong = Answers(np.zeros((1, 4), bool))
    found = difference({0: Answers(right, block=2)}, {0: wrong})
    assert parts(found) == (0.5, -1, 1)
    many = Answers(np.tile(right, 50), block=2)
    variance = 100 / 99 * 100 / 200**2 + 2 * 2 / 200**2
    found = difference({0: many}, {0: Answers(np.zeros((1, 200), bool))})
    assert found.high == pytest.approx(0.5 + stats.t.ppf(0.975, 99) * variance**0.5)
    # Two draws that all images share, of accuracy 1 and 0: variance of their mean 1/4.
    drawn = Answers(np.repeat([[True], [False]], 200, axis=1), draws=2)
    assert difference({0: drawn}, {0: Answers(np.zeros((1, 200), bool))}).low == -1


def test_seeds_that_move_together_do_not_widen_their_difference():
    """2 and 1 of 2 right at the first seed, 1 and 0 at the second: a difference of 1/2 in both."""
    none, one, both = (all_alike(right, 100, of=2) for right in range(3))
    half = max(1 - 0.025 ** (1 / 100), stats.t.ppf(0.975, 99) * (2 / 100**2) ** 0.5)
    first, second = {0: both, 1: one}, {0: one, 1: none}
    found = difference(first, second)
    assert parts(found) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    # In whatever order they were measured; other seeds are not paired.
    assert difference({1: one, 0: both}, second) == found
    assert difference(first, {2: one, 3: none}).low == -1


def test_seeds_of_one_side_widen_a_paired_difference():
    """Two seeds of one side with MRAs 1/2 and 1/3: variance 1/72, over 2 seeds 1/144."""
    first, second = (np.tile(side.correct, 50) for side in (FIRST, SECOND))
    other = np.tile(np.array([[1, 0, 0], [1, 0, 0]], dtype=bool), 50)
    pairs = (first.mean(axis=0) + other.mean(axis=0)) / 2 - second.mean(axis=0)
    images = stats.t.ppf(0.975, 149) ** 2 * (pairs.var(ddof=1) / 150 + 2 / 150**2)
    half = (images + stats.t.ppf(0.975, 1) ** 2 / 144) ** 0.5
    found = difference({0: Answers(first), 1: Answers(other)}, {0: Answers(second)})
    assert found.low == pytest.approx(max(-1, found.value - half))
    assert found.high == pytest.approx(min(1, found.value + half))


def test_different_images_cannot_be_paired_and_shared_ones_are_the_first():
    with pytest.raises(ValueError, match="same images"):
        difference({0: FIRST}, {0: TWO})
    cut = on_shared_images([FIRST, TWO])
    assert [answers.images for answers in cut] == [3, 3]
    assert (cut[1].correct == CORRECT[:, :3]).all()
    assert on_shared_images([]) == []


def test_what_is_shared_is_compared_on_common_seeds_and_images():
    found = shared_difference({0: FIRST, 1: SECOND}, {1: TWO, 2: FIRST})
    assert found == difference({1: SECOND}, {1: TWO.first(3)})
    assert shared_difference({0: FIRST}, {1: SECOND}) == difference({0: FIRST}, {1: SECOND})
    assert shared_difference({}, {0: FIRST}) is None


def test_the_worst_case_by_hand():
    """Image 0 from the second attack, images 1 and 2 from the first."""
    combined = worst_case([FIRST, SECOND])
    assert combined.correct.tolist() == [[False, True, False], [True, False, False]]
    with pytest.raises(ValueError, match="same population"):
        worst_case([FIRST, TWO])


def test_the_worst_case_of_random_members_is_chosen_by_other_draws_than_it_is_scored_by():
    first, second = np.array([[1, 1], [1, 0]], bool), np.array([[0, 0], [0, 1]], bool)
    combined = worst_case(
        [
            Answers(first, draws=2, selecting=np.array([0.2, 0.9])),
            Answers(second, draws=2, selecting=np.array([0.5, 0.4]), block=2),
        ]
    )
    assert combined.s.tolist() == [1.0, 0.5]
    assert combined.selected.tolist() == [0.2, 0.4]
    assert (combined.draws, combined.block) == (2, 2)


@given(st.lists(arrays(bool, (3, 6)), min_size=1, max_size=5), st.permutations(range(3)))
def test_the_worst_case_is_below_every_attack_and_blind_to_the_order_of_submodels(tried, order):
    combined = worst_case([Answers(correct) for correct in tried]).s
    assert all((combined <= Answers(correct).s + 1e-12).all() for correct in tried)
    shuffled = worst_case([Answers(correct[order]) for correct in tried]).s
    assert shuffled.mean() == pytest.approx(combined.mean())


def test_the_best_member_is_chosen_on_one_half_and_scored_on_the_other():
    """The first has 2 of 2 even images, the second 2 of 2 odd ones: each is scored at 0."""
    alone = Answers(np.array([[1, 0, 1, 0], [0, 1, 0, 1]], bool))
    best = best_member(alone)
    assert best.s.tolist() == [0, 0, 0, 0]
    # Beside their mean the members are at +-1/2: each with a variance of the mean of 1/12.
    assert best.choice == pytest.approx(EQUALS * (1 / 12 + 1 / 12))
    # By pairs that share a draw, a half is the images 0 and 1, and each member has one of them.
    assert best_member(Answers(alone.correct, block=2)).s.tolist() == [1, 0, 1, 0]
    assert best_member(TWO).s.tolist() == CORRECT[0].tolist()


def test_a_best_member_that_is_random_is_chosen_by_half_of_its_draws():
    """The first is right on the draws 0 and 1 alone, the second on 2 and 3 alone."""
    lucky = np.repeat([[1], [1], [0], [0], [0], [0], [1], [1]], 6, axis=1).astype(bool)
    best = best_member(Answers(lucky, draws=4))
    assert (best.draws, best.s.tolist()) == (2, [0] * 6)
    alone = Answers(lucky[:4], draws=4)
    assert best_member(alone).s.tolist() == alone.s.tolist()


def test_a_persistent_attacker_by_hand():
    """s = (1, 1/2, 0, 0): k = 2 gives (1 + 1/4) / 4; the limit is 1/4."""
    assert [persistent(TWO, tries) for tries in (1, 2, np.inf)] == [0.375, 0.3125, 0.25]


def test_a_persistent_attacker_of_a_random_network_is_estimated_without_bias():
    """2 of 3 draws right: 1 of 3 pairs is. Over all outcomes of three draws the mean is s^2."""
    drawn = Answers(np.array([[1], [1], [0]], bool), draws=3)
    assert persistent(drawn, 2) == pytest.approx(1 / 3)
    assert persistent(drawn, 4) is None
    assert persistent(Answers(np.ones((4, 1), bool), draws=2), 2) is None
    assert persistent(drawn, np.inf) is None
    outcomes = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).astype(bool)
    chances = np.prod(np.where(outcomes, 0.8, 0.2), axis=0)
    found = [persistent(Answers(o[:, np.newaxis], draws=3), 2) for o in outcomes.T]
    assert chances @ found == pytest.approx(0.8**2)


@given(matrices, st.integers(1, 20))
def test_more_tries_never_help_the_defense(correct, tries):
    answers = Answers(correct)
    assert persistent(answers, np.inf) - 1e-12 <= persistent(answers, tries + 1)
    assert persistent(answers, tries + 1) <= persistent(answers, tries) + 1e-12
