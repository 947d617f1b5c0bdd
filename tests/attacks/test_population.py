"""Attacks on the expectation over a population, where the right answer is known by hand."""

import pytest
import torch
from networks import PARAMETERS, Coin, Double, Linear, left, problem_of
from randomized_defense_bench.attacks.problem import Problem
from randomized_defense_bench.attacks.seeding import global_seed
from torch import nn


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attack", list(PARAMETERS))
def test_every_attack_finds_a_boundary_just_inside_the_ball_and_none_finds_one_outside(
    attack, norm
):
    """One linear submodel: the distance to its boundary is b over the dual norm of w."""
    weights = [0.6, -0.8]
    dual = 1.4 if norm == "Linf" else 1.0
    for share, expected in ((0.95, 0.0), (1.05, 1.0)):
        problem = problem_of([Linear(weights, 0.3 * share * dual)], 8, norm, eps=0.3)
        # Random squares cannot point a vector of two pixels just anywhere in the L2 ball.
        if attack != "square-population" or norm == "Linf" or expected:
            assert left(attack, problem) == [expected] * 8


# ARC never goes where more members are right, so that it depends on the random start.
@pytest.mark.parametrize("attack", [attack for attack in PARAMETERS if attack != "arc"])
def test_attacks_follow_the_law(attack):
    """Of two members that cannot be fooled together, the likelier one is."""
    members = [Linear([1.0, 0.0], 0.2), Linear([-1.0, 0.0], 0.2)]
    problem = problem_of(members, 4, "Linf", eps=0.3, probabilities=(0.9, 0.1))
    assert left(attack, problem) == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("attack", list(PARAMETERS))
def test_every_attack_takes_images_in_double_precision(attack):
    members = [Linear([1.0, 1.0], 0.1).double(), Coin(2.0)]
    single = problem_of(members, 3, "Linf", eps=0.3)
    problem = Problem(single.population, single.images.double(), single.labels, single.threat_model)
    assert left(attack, problem) == [0.5] * 3


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attack", list(PARAMETERS))
def test_every_attack_takes_answers_in_double_precision(attack, norm):
    """As of `log_softmax(1, dtype=torch.float64)`, for images that are not."""
    members = [nn.Sequential(Linear([1.0, 1.0], 0.1), Double()), nn.Sequential(Coin(2.0), Double())]
    assert left(attack, problem_of(members, 3, norm, eps=0.3)) == [0.5] * 3


@pytest.mark.parametrize("attack", list(PARAMETERS))
def test_no_attack_makes_anything_of_luck(attack):
    """A network that is right by a coin stays right half of the time."""
    problem = problem_of([Coin()], 100, "Linf", eps=0.1, draws=4)
    with global_seed(0, torch.device("cpu")):
        found = torch.tensor(left(attack, problem))
    # Four standard deviations of 400 coins.
    assert found.mean().item() == pytest.approx(0.5, abs=0.1)
