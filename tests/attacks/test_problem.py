"""Incumbents: by s_j where it is exact, and by other draws where members are random."""

import pytest
import torch
from networks import Coin, Linear, problem_of, telling
from randomized_defense_bench.attacks import ThreatModel, gradient
from randomized_defense_bench.attacks.cascade import worst_case
from randomized_defense_bench.attacks.objectives import LOSSES
from randomized_defense_bench.attacks.problem import Incumbent, Problem
from randomized_defense_bench.attacks.seeding import global_seed
from randomized_defense_bench.benchmarks.environment import subnormals_flushed
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.surrogate import Plan, Surrogate

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


@pytest.mark.parametrize("stacked", [False, True])
def test_low_precision_changes_what_is_seen_and_not_what_is_counted(stacked):
    torch.manual_seed(0)
    images = torch.rand(20, 1, 32, 32)
    members = [telling(images) for _ in range(2)]
    population = Population(members, probabilities=(0.7, 0.3)).requires_grad_(False)
    labels = members[0](images).argmax(1)
    plan = Plan(stacked=stacked, chunk=20, dtype="bfloat16")
    exact, rough = (Surrogate(population, plan, low_precision=low) for low in (False, True))
    exact.searched_through(rough)
    problem = Problem(exact, images, labels, ThreatModel("L2", 0.02))
    incumbent = problem.incumbent()
    worst_case(problem, incumbent, steps=10, queries=20, members=2, cycles=1)
    everything = torch.arange(len(incumbent.images))
    seen, true = (ask(incumbent.images, everything) for ask in (problem.seen, problem.logits))
    assert not torch.equal(seen, true)
    counted = problem.correctness(incumbent.images, torch.arange(20))
    assert torch.equal(incumbent.correctness, counted)
    assert 0 < counted.mean() < 1


@pytest.mark.parametrize(("bias", "left"), [(0.15, 0.0), (0.35, 1.0)])
def test_what_low_precision_claims_is_confirmed(bias, left):
    """A rough copy sees the network fooled at once; it is at the edge of the ball, or never."""
    problem = problem_of([Linear([1.0, 0.0], bias)], 20, "Linf", eps=0.3)
    problem.population.searched_through(Population([Linear([1.0, 0.0], -0.5)]))
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

    def offer(value, correctness, loss):
        images = torch.full((2, 1, 1, 1), value)
        losses = torch.full((2,), loss)
        incumbent.offer(torch.arange(2), images, torch.tensor(correctness), losses)

    offer(1.0, [1.0, 1.0], 1.0)
    offer(2.0, [1.0, 0.5], 2.0)
    assert asked == [[1]]
    assert incumbent.correctness.tolist() == [1.0, 0.75]
    # What was claimed again, and is no better than what is held, takes no place with a lower loss.
    offer(3.0, [1.0, 0.5], 1.5)
    assert asked == [[1], [1]]
    assert incumbent.images.flatten().tolist() == [2.0, 2.0]


def test_a_gradient_of_zero_leads_nowhere_even_where_subnormal_numbers_are_flushed():
    with subnormals_flushed():
        direction = problem_of([Coin()]).direction(torch.zeros(1, 1, 1, 2))
    assert direction.tolist() == [[[[0.0, 0.0]]]]
