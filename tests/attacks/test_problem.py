"""Incumbents: by s_j where it is exact, and by other draws where members are random."""

import pytest
import torch
from networks import Coin, Linear, problem_of
from randomized_defense_bench.attacks import gradient
from randomized_defense_bench.attacks.objectives import LOSSES
from randomized_defense_bench.attacks.problem import Incumbent
from randomized_defense_bench.attacks.seeding import global_seed
from randomized_defense_bench.benchmarks.environment import subnormals_flushed
from randomized_defense_bench.defenses import Population

CPU = torch.device("cpu")


def test_incumbents_are_compared_by_confirming_draws():
    """Both points look perfect by the draws of the search; other draws say 0.8 and 0.3."""
    images = torch.zeros(1, 1, 1, 1)
    by_other_draws = {1.0: 0.8, 2.0: 0.3, 3.0: 0.9}

    def confirm(offered, at):
        assert at.tolist() == [0]
        return torch.tensor([by_other_draws[offered.item()]])

    incumbent = Incumbent(images, confirm)
    for value, kept in ((1.0, 1.0), (2.0, 2.0), (3.0, 2.0)):
        incumbent.offer(
            torch.tensor([0]), torch.full_like(images, value), torch.zeros(1), torch.zeros(1)
        )
        assert incumbent.images.item() == kept
    assert incumbent.correctness.item() == pytest.approx(0.3)
    assert incumbent.alive.tolist() == [0]


def test_one_lucky_draw_does_not_finish_an_image():
    """Four coins are all wrong in one pass of sixteen: after 21 passes in most images once."""
    problem = problem_of([Coin()], 200, "Linf", eps=0.1, draws=4)
    with global_seed(0, CPU):
        incumbent = problem.incumbent()
        gradient.pgd(problem, incumbent, LOSSES["mean-ce"], steps=20)
    # An incumbent is at 0 only where confirming draws were all wrong too: by a lucky pass that
    # another one confirms, 1 - (1 - 1 / 256) ** 21 = 8%, and somewhat more as s_j falls by and by.
    assert len(incumbent.alive) > 100


@pytest.mark.parametrize(("bias", "left"), [(0.15, 0.0), (0.35, 1.0)])
def test_what_low_precision_claims_is_confirmed(bias, left):
    """A rough copy sees the network fooled at once; it is at the edge of the ball, or never."""
    problem = problem_of([Linear([1.0, 0.0], bias)], 20, "Linf", eps=0.3)
    problem.population.rough = Population([Linear([1.0, 0.0], -0.5)])
    incumbent = problem.incumbent()
    with global_seed(0, CPU):
        gradient.pgd(problem, incumbent, LOSSES["mean-ce"], steps=20)
    assert incumbent.correctness.tolist() == [left] * 20
    assert problem.correctness(incumbent.images, torch.arange(20)).tolist() == [left] * 20


def test_only_what_fools_somebody_is_confirmed_where_luck_has_no_part():
    asked = []

    def confirm(images, at):
        asked.append(at.tolist())
        return torch.full((len(at),), 0.75)

    incumbent = Incumbent(torch.zeros(2, 1, 1, 1), confirm, lucky=False)
    for correctness in ([1.0, 1.0], [1.0, 0.5]):
        incumbent.offer(
            torch.arange(2), torch.ones(2, 1, 1, 1), torch.tensor(correctness), torch.ones(2)
        )
    assert [at for at in asked if at] == [[1]]
    assert incumbent.correctness.tolist() == [1.0, 0.75]


def test_a_gradient_of_zero_leads_nowhere_even_where_subnormal_numbers_are_flushed():
    with subnormals_flushed():
        direction = problem_of([Coin()]).direction(torch.zeros(1, 1, 1, 2))
    assert direction.tolist() == [[[[0.0, 0.0]]]]
