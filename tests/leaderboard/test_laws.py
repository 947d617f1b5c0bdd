"""The best law of a finite population, by hand."""

import numpy as np
import pytest
from randomized_defense_bench.leaderboard.laws import best_law, under_best_law
from samples import gated, row
from test_pages import shown

from randomized_defense_bench.metrics import Answers


def tried(either, first):
    """Under two attacks: of some images one fools either member, of others both the second."""
    one, other = [[0] * either + [1] * first, [1] * either + [0] * first], np.array([1, 0])
    attacks = [np.array(one, bool), np.array(one, bool)]
    attacks[1][:, :either] = attacks[1][other, :either]
    return [Answers(correct) for correct in attacks]


@pytest.mark.parametrize(
    ("either", "first", "law"), [(3, 1, (0.5, 0.5)), (1, 3, (1, 0)), (4, 0, (0.5, 0.5))]
)
def test_the_law_maximizes_what_the_strongest_attack_on_each_image_leaves(either, first, law):
    """Its value is either * min(p, 1 - p) + first * p, p the first member's probability."""
    assert best_law(tried(either, first)) == pytest.approx(law, abs=1e-6)


def test_three_members_each_fooled_on_one_image_are_drawn_alike():
    assert best_law([Answers(~np.eye(3, dtype=bool))] * 2) == pytest.approx([1 / 3] * 3)


def test_a_law_is_not_scored_on_the_images_that_chose_it():
    """One member is right on every second image, the other on the rest."""
    correct = np.tile(np.eye(2, dtype=bool), 10)
    assert under_best_law([Answers(correct)]).s.tolist() == [0.0] * 20
    better = np.stack([np.ones(20, bool), np.zeros(20, bool)])
    assert under_best_law([Answers(better)]).s.tolist() == [1.0] * 20


def test_the_page_has_the_best_law_of_a_population_that_something_is_left_of():
    """One member is right on one image more, which no other image tells."""
    text = shown(gated("ulm", 5))
    assert "the best ones leave 22.5 (" in text
    assert "+0.0 (" in text
    assert "100.0, 0.0 percent" in text
    for measured in (gated("ulm", 0), row("ulm", 5, submodels=1), row("ulm", 5, draws=4)):
        assert "Other probabilities" not in shown(measured)
