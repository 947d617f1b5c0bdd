import pytest
import torch
from networks import Linear
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.attacks.effort import LEAST, aim, go_on, improve, nearest, row_margins
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
    at = nearest(problem, problem.incumbent())
    # Image 10 is just above what fools the second; image 0, where that is fooled, near the first.
    assert at.tolist()[:2] == [10, 0]
    gaps = row_margins(problem, problem.incumbent())
    assert gaps[1, 10] == pytest.approx(gaps[1, 10:].max())
    assert gaps[1, 0] > 0
    assert len(at) == 20
    assert len(nearest(problem, problem.incumbent(), share=0.01)) == LEAST


def recorded(problem, share=1.0, members=3):
    """What searches for one more member were asked, in order: problems of images."""
    asked = []
    aim(
        problem,
        problem.incumbent(),
        lambda part, best: asked.append(part),
        share=share,
        members=members,
    )
    return asked


def firsts_of(part):
    return part.images[:, 0, 0, 0].tolist()


def test_one_more_member_is_aimed_at_while_those_that_are_fooled_are_held():
    members = [Linear([1.0, 0.0], offset) for offset in (0.2, 0.01, -0.2)]
    # At 0.5 the third is fooled already, at 0.9 none is.
    alone, held = recorded(problem_at([0.5, 0.9], members))
    assert firsts_of(alone) == pytest.approx([0.9] * 3)
    assert sorted(alone.members.tolist()) == [0, 1, 2]
    assert firsts_of(held) == [0.5, 0.5]
    assert held.focus.T.tolist() == [[1, 0, 1], [0, 1, 1]]


def test_a_member_that_is_searched_alone_is_the_only_one_asked(monkeypatch):
    members = [Linear([1.0, 0.0], offset) for offset in (0.2, 0.01, 0.3)]
    asked = []
    for number, member in enumerate(members):
        member.register_forward_hook(lambda _m, given, _o, k=number: asked.append((k, *given)))
    (alone,) = recorded(problem_at([0.5, 0.6], members), share=0.01)
    asked.clear()
    everything = torch.arange(len(alone.images))
    answered = alone.logits(alone.images, everything)
    assert sum(len(images) for _, images in asked) == len(alone.images)
    each = zip(alone.images, alone.members.tolist(), strict=True)
    expected = torch.cat([members[k](image.unsqueeze(0)) for image, k in each])
    assert torch.equal(answered, expected.double().unsqueeze(0))
    assert alone.correctness(alone.images, everything).tolist() == [1.0] * len(everything)


def test_pairs_of_an_image_and_a_member_are_tried_by_their_margins():
    members = [Linear([1.0, 0.0], 0.01), Linear([1.0, 0.0], 0.3)]
    firsts = torch.linspace(0.5, 0.9, 40)
    problem = problem_at(firsts.tolist(), members)
    gaps = row_margins(problem, problem.incumbent())
    (part,) = recorded(problem, share=0.5, members=2)
    for row in range(2):
        wanted = gaps[row] >= gaps.flatten().sort(descending=True).values[39]
        found = part.images[part.members == row][:, 0, 0, 0]
        assert sorted(found.tolist()) == pytest.approx(firsts[wanted].tolist())


def test_a_member_that_is_never_drawn_is_not_aimed_at():
    members = [Linear([1.0, 0.0], 0.2), Linear([1.0, 0.0], 0.01)]
    problem = problem_at([0.5, 0.6], members, probabilities=(1.0, 0.0))
    (part,) = recorded(problem)
    assert firsts_of(part) == pytest.approx([0.5, 0.6])
    assert part.members.tolist() == [0, 0]


def lower(part, best):
    """A search that makes the first pixel darker by 0.1."""
    everything = torch.arange(len(part.images))
    images = part.images - torch.tensor([0.1, 0.0])
    best.offer(everything, images, part.correctness(images, everything), everything.double())


def test_what_fools_one_member_alone_counts_as_what_it_does_to_all():
    members = [Linear([1.0, 0.0], 0.05), Linear([1.0, 0.0], 0.3), Linear([1.0, 0.0], 0.02)]
    problem = problem_at([0.5, 0.9], members)
    incumbent = problem.incumbent()
    aim(problem, incumbent, lower, share=1.0, members=3)
    assert incumbent.correctness.tolist() == pytest.approx([1 / 3, 1.0])
    assert incumbent.images[0, 0, 0, 0] == pytest.approx(0.4)


def test_what_a_search_finds_is_kept_where_it_is_better_and_finished_images_are_not_asked():
    members = [Linear([1.0, 0.0], 0.05), Linear([1.0, 0.0], 0.3)]
    problem = problem_at([0.5, 0.5, 0.9, 0.0], members)
    incumbent = problem.incumbent()
    assert incumbent.correctness.tolist() == [1, 1, 1, 0]
    seen = []

    def search(part, best):
        seen.append(len(part.images))
        lower(part, best)

    go_on(problem, incumbent, search)
    assert seen == [3]
    assert incumbent.correctness.tolist() == [0.5, 0.5, 1, 0]
    worse = [(torch.tensor([0]), torch.ones(2, 1))]
    improve(problem, incumbent, worse, lambda part, best: best.correctness.fill_(1.0))
    assert incumbent.correctness[0] == 0.5
