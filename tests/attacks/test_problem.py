"""Incumbents: by s_j where it is exact, and by other draws where members are random."""

import pytest
import torch
from networks import Coin, problem_of
from randomized_defense_bench.attacks import gradient
from randomized_defense_bench.attacks.objectives import LOSSES
from randomized_defense_bench.attacks.problem import Incumbent
from randomized_defense_bench.attacks.seeding import global_seed
from randomized_defense_bench.benchmarks.environment import subnormals_flushed

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


def test_a_gradient_of_zero_leads_nowhere_even_where_subnormal_numbers_are_flushed():
    with subnormals_flushed():
        direction = problem_of([Coin()]).direction(torch.zeros(1, 1, 1, 2))
    assert direction.tolist() == [[[[0.0, 0.0]]]]
