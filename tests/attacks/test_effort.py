import pytest
import torch
from networks import Linear
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.attacks.cascade import _aims
from randomized_defense_bench.attacks.effort import LEAST, go_on, improve, nearest
from randomized_defense_bench.attacks.problem import Problem
from randomized_defense_bench.defenses import Population


def problem_at(firsts, members, probabilities=None):
    """Images 1 x 1 x 2 whose first pixel is given; class 0 is right."""
    images = torch.tensor([[[[first, 0.5]]] for first in firsts])
    labels = torch.zeros(len(firsts), dtype=torch.int64)
    population = Population(members, probabilities=probabilities)
    return Problem(population, images, labels, ThreatModel("Linf", 0.1))


def test_the_nearest_images_come_first_and_fooled_members_do_not_count():
    """The margin of member k is (first pixel - 1/2) times its weight, plus its offset."""
    firsts = torch.linspace(0.5, 0.9, 40).tolist()
    problem = problem_at(firsts, [Linear([1.0, 0.0], 0.01), Linear([1.0, 0.0], -0.101)])
    at, gaps = nearest(problem, problem.incumbent())
    # Image 10 is just above what fools the second; image 0, where that is fooled, near the first.
    assert at.tolist()[:2] == [10, 0]
    assert gaps[1, 0] == pytest.approx(gaps[1].max())
    assert gaps[1, 1] == -torch.inf
    assert len(at) == 20
    few, _ = nearest(problem, problem.incumbent(), share=0.01)
    assert len(few) == LEAST


def test_a_member_that_is_never_drawn_is_not_aimed_at():
    members = [Linear([1.0, 0.0], 0.2), Linear([1.0, 0.0], 0.01)]
    problem = problem_at([0.5, 0.6], members, probabilities=(1.0, 0.0))
    _, gaps = nearest(problem, problem.incumbent())
    assert gaps[1].tolist() == [-torch.inf] * 2


def test_a_climb_holds_what_is_fooled_and_aims_at_one_member_more():
    gaps = torch.tensor([[-0.2, -torch.inf], [-0.1, -0.3], [-torch.inf, -0.4]])
    members = [Linear([1.0, 0.0], 0.1)] * 3
    tries = _aims(problem_at([0.5], members), torch.tensor([7, 9]), gaps, 2)
    first, second = ((at.tolist(), rows.tolist()) for at, rows in tries)
    assert first == ([7, 9], [[0, 1], [1, 1], [1, 0]])
    assert second == ([7, 9], [[1, 1], [0, 0], [1, 1]])


def test_what_a_search_finds_is_kept_where_it_is_better_and_finished_images_are_not_asked():
    members = [Linear([1.0, 0.0], 0.05), Linear([1.0, 0.0], 0.3)]
    problem = problem_at([0.5, 0.5, 0.9, 0.0], members)
    incumbent = problem.incumbent()
    assert incumbent.correctness.tolist() == [1, 1, 1, 0]
    seen = []

    def search(part, best):
        seen.append(len(part.images))
        everything = torch.arange(len(part.images))
        lower = part.images - torch.tensor([0.1, 0.0])
        best.offer(everything, lower, part.correctness(lower, everything), everything.double())

    go_on(problem, incumbent, search)
    assert seen == [3]
    assert incumbent.correctness.tolist() == [0.5, 0.5, 1, 0]
    worse = [(torch.tensor([0]), torch.ones(2, 1))]
    improve(problem, incumbent, worse, lambda part, best: best.correctness.fill_(1.0))
    assert incumbent.correctness[0] == 0.5
