import pytest
import torch
from networks import PARAMETERS, Linear, inconsistent, left, problem_of
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.attacks.problem import Problem
from randomized_defense_bench.defenses import Population
from torch import nn


def test_the_cascade_finds_what_mean_losses_miss_whatever_the_seed():
    assert [left("worst-case", inconsistent(), seed) for seed in range(5)] == [[0.5]] * 5


def test_the_cascade_says_what_each_part_took_and_gained(caplog):
    caplog.set_level("INFO")
    assert left("worst-case", inconsistent()) == [0.5]
    _, _, _, *rows = caplog.messages[-1].splitlines()
    gained = [(int(row.split()[-2]), float(row.split()[-1])) for row in rows]
    assert sum(points for _, points in gained) == 50
    assert {images for images, points in gained if points} == {1}


class Misleading(nn.Module):
    """Fooled only by the left half that squares find beside the right half that gradients find.

    Of an image 1 x 16 x 16 around 1/2, u is the left half's mean and v the right half's alignment
    with a checkerboard, in units of eps. The margin g(u) + v - 6.25, with g falling from 1 at -1 to
    -2/5 at 2/5 and rising to 5.75 at 1, is positive only where u is near 1 and v above 1/2.
    Gradients lead from most starts to u = -1; few squares align with a checkerboard.
    """

    def __init__(self, eps):
        super().__init__()
        self.eps = eps
        self.checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 4)

    def forward(self, images):
        offset = (images[:, 0] - 0.5) / self.eps
        u = offset[:, :, :8].mean((1, 2))
        v = (offset[:, :, 8:] * self.checkerboard).mean((1, 2))
        margin = torch.where(u < 0.4, -u, 10.25 * (u - 0.4) - 0.4) + v - 6.25
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def test_queries_lead_gradients_to_where_neither_gets_alone():
    images = torch.full((16, 1, 16, 16), 0.5)
    labels = torch.zeros(16, dtype=torch.int64)
    problem = Problem(Population([Misleading(0.1)]), images, labels, ThreatModel("Linf", 0.1))
    for attack in ("pgd-mean-ce", "apgd-population", "square-population"):
        assert sum(left(attack, problem)) >= 8
    assert sum(left("worst-case", problem)) <= 4


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.3)])
def test_the_cascade_is_no_weaker_than_any_part(norm, eps):
    torch.manual_seed(0)
    members = [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5))
        for _ in range(4)
    ]
    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = members[0](images).argmax(-1)
    problem = Problem(Population(members), images, labels, ThreatModel(norm, eps))
    accuracy = {attack: sum(left(attack, problem)) / 32 for attack in PARAMETERS}
    assert accuracy["worst-case"] <= min(accuracy.values()) + 0.01
    assert accuracy["worst-case"] < problem.correctness(images, torch.arange(32)).mean()


def test_the_cascade_ends_where_no_image_is_left():
    """Many networks reshape with -1, which an empty batch leaves undefined."""

    class Reshaping(Linear):
        def forward(self, images):
            return super().forward(images.view(images.size(0), -1, 1, 2))

    problem = problem_of([Reshaping([1.0, 1.0], 0.01)], 8, "Linf", eps=0.3)
    assert left("worst-case", problem) == [0.0] * 8


class Decoy(nn.Module):
    """The nearest wrong class never wins; a farther one may, where a checkerboard is reversed.

    Args:
        far: the farther class's margin on the clean image, and how it moves with the checkerboard.
    """

    def __init__(self, eps, far=(-0.5, -0.6)):
        super().__init__()
        self.eps, self.far = eps, far
        self.checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)

    def forward(self, images):
        u = ((images[:, 0] - 0.5) / self.eps * self.checkerboard).mean((1, 2))
        near, far = -0.1 + 0.05 * u, self.far[0] + self.far[1] * u
        return 20 * torch.stack([torch.zeros_like(u), near, far], dim=1)


def decoys(members):
    images, labels = torch.full((8, 1, 16, 16), 0.5), torch.zeros(8, dtype=torch.int64)
    return Problem(Population(members), images, labels, ThreatModel("Linf", 0.1))


def test_the_cascade_approaches_rival_classes_where_it_is_told_to():
    problem = decoys([Decoy(0.1)])
    assert left("worst-case", problem) == [1.0] * 8
    assert left("worst-case", problem, targets=1) == [1.0] * 8
    assert left("worst-case", problem, targets=2) == [0.0] * 8


def test_a_class_that_fools_one_member_is_approached_though_all_others_pull_away_from_it():
    opposed = Decoy(0.1, far=(-5.0, 4.5))
    problem = decoys([Decoy(0.1), opposed, opposed])
    assert left("worst-case", problem, members=3) == [1.0] * 8
    assert left("worst-case", problem, members=3, targets=2) == pytest.approx([2 / 3] * 8)
