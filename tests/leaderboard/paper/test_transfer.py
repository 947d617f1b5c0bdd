import numpy as np
import pytest
from randomized_defense_bench.leaderboard.paper.transfer import (
    means_apart,
    network_shares,
    transfer,
)
from scipy import stats

from randomized_defense_bench.metrics import another_mean


def test_accuracies_by_hand():
    correct = np.zeros((2, 2, 4), dtype=bool)
    correct[0, 1, :2] = correct[1, 0] = correct[1, 1, :1] = True
    assert transfer(correct).tolist() == [[0.0, 0.5], [1.0, 0.25]]
    # Two draws of each member, which answer alike.
    assert transfer(correct.repeat(2, axis=1)).tolist() == transfer(correct).tolist()


def test_what_a_network_adds_attacked_and_answering_by_hand():
    """Rows 0.3 and 0.7, columns 0.4 and 0.6, mean 1/2."""
    shares = network_shares(np.array([[0.2, 0.4], [0.6, 0.8]]))
    assert shares == pytest.approx([0.3 + 0.4 - 0.5, 0.7 + 0.6 - 0.5])


def test_intervals_over_networks_hold_where_answers_vary_more_than_attacks():
    rng = np.random.default_rng(0)
    attacked, answering = rng.normal(0, 0.01, (4000, 2, 4)), rng.normal(0, 0.02, (4000, 2, 4))
    accuracies = 0.5 + attacked[..., :, np.newaxis] + answering[..., np.newaxis, :]
    within = [
        found.low <= others.mean() <= found.high
        for table, others in accuracies
        for found in [another_mean(network_shares(table), 4)]
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
