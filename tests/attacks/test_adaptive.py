"""Attacks on the expectation over a population, where the right answer is known by hand."""

import pytest
import torch
from attacks.search import Incumbent, Problem, apgd_checkpoints
from torch import nn

from attacks import ATTACKS, ThreatModel, craft, search, square
from attacks.arc import arc
from attacks.objectives import CLIP, LOSSES, expected_correctness, margins
from defenses import Population

# Two submodels, one image, three classes, label 0.
LOGITS = torch.tensor([[[2.0, 1.0, 0.0]], [[0.0, 1.0, 5.0]]])
LABELS = torch.tensor([0])
SCALE = torch.tensor([1.0, 7**0.5])


def test_expected_correctness_by_hand():
    assert expected_correctness(LOGITS, LABELS).tolist() == [0.5]


def test_margins_are_in_units_of_each_submodel_s_spread():
    """Standard deviations: 1 for (2, 1, 0), sqrt(7) for (0, 1, 5)."""
    untargeted = margins(LOGITS, LABELS, SCALE)
    assert untargeted.flatten().tolist() == pytest.approx([-1.0, 5 / 7**0.5])
    targeted = margins(LOGITS, LABELS, SCALE, torch.tensor([1]))
    assert targeted.flatten().tolist() == pytest.approx([-1.0, 1 / 7**0.5])


def test_the_scale_is_the_clean_logits_spread():
    problem = problem_of([Linear([1.0, 0.0], 2.0), Linear([1.0, 0.0], 4.0)])
    assert problem.scale.tolist() == pytest.approx([2**0.5, 2 * 2**0.5])


def test_losses_by_hand():
    first = LOGITS[:, 0].softmax(-1)[:, 0]
    expected = {
        "mean-ce": -(first.log().mean()),
        "mean-probability": -(first.mean().log()),
        "mean-margin": (-1 + 5 / 7**0.5) / 2,
        "clipped-margin": (-1 + CLIP) / 2,
    }
    for name, loss in LOSSES.items():
        shift = torch.tensor(2.0).log() if name == "mean-probability" else 0.0
        assert loss(LOGITS, LABELS, SCALE, None).item() == pytest.approx(
            float(expected[name] - shift)
        )


def test_the_clipped_margin_spends_nothing_on_submodels_that_are_fooled():
    logits = LOGITS.clone().requires_grad_()
    LOSSES["clipped-margin"](logits, LABELS, SCALE, None).sum().backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


def test_apgd_reconsiders_its_step_when_the_paper_says():
    assert sorted(apgd_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


class Linear(nn.Module):
    """Logits (w . (x - 1/2) + b, 0) of a 1 x 1 x d image: class 0 while the first is positive."""

    def __init__(self, weights, bias):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.bias = bias

    def forward(self, images):
        first = (images - 0.5).flatten(1) @ self.weights + self.bias
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def problem_of(submodels, count=1, norm="L2", eps=0.4):
    images = torch.full((count, 1, 1, 2), 0.5)
    labels = torch.zeros(count, dtype=torch.int64)
    return Problem(Population(submodels), images, labels, ThreatModel(norm, eps))


def inconsistent():
    """Each submodel can be fooled alone, and the mean loss leads to where none is.

    With u = (x - 1/2) / eps: f = 1.1 u0 + 0.9 u1 + 1 and f' = -1.1 u0 + 0.9 u1 + 1. By symmetry the
    mean loss has no gradient in u0, and at its end, u = (0, -1), f = f' = 0.1: nothing is found.
    Yet at u = (-0.77, -0.63), f < 0: expected correctness 1/2 is there to be had.
    """
    return problem_of([Linear([1.1 / 0.4, 0.9 / 0.4], 1.0), Linear([-1.1 / 0.4, 0.9 / 0.4], 1.0)])


@pytest.mark.parametrize("loss", list(LOSSES))
def test_where_the_mean_loss_is_inconsistent_no_loss_finds_anything_from_the_clean_image(loss):
    problem = inconsistent()
    incumbent = Incumbent(problem.images)
    search.pgd(problem, incumbent, LOSSES[loss], steps=100, start=problem.images)
    assert incumbent.correctness.tolist() == [1.0]


def test_arc_finds_it_from_the_clean_image():
    problem = inconsistent()
    incumbent = Incumbent(problem.images)
    arc(problem, incumbent, steps=10, radius=0.1, candidates=1, start=problem.images)
    assert incumbent.correctness.tolist() == [0.5]
    assert problem.threat_model.violation(incumbent.images, problem.images) is None


PARAMETERS = {
    **{f"pgd-{loss}": {"steps": 20, "restarts": 1} for loss in LOSSES},
    "apgd-population": {"steps": 20, "targets": 1},
    "arc": {"steps": 10, "candidates": 1},
    "square-population": {"queries": 200},
    "worst-case": {
        "steps": 10,
        "apgd_steps": 20,
        "targets": 1,
        "arc_steps": 5,
        "candidates": 1,
        "queries": 50,
        "rounds": 4,
    },
}


def run(attack, population, images, labels, threat_model, seed=0):
    return craft(
        ATTACKS[attack],
        population,
        images,
        labels,
        threat_model,
        seed=seed,
        parameters=PARAMETERS[attack],
        batch_size=64,
    ).images


def test_the_cascade_finds_it_whatever_the_seed():
    problem = inconsistent()
    for seed in range(5):
        found = run(
            "worst-case",
            Population(problem.population.submodels),
            problem.images,
            problem.labels,
            problem.threat_model,
            seed,
        )
        assert problem.correctness(found, torch.tensor([0])).tolist() == [0.5]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attack", list(PARAMETERS))
def test_every_attack_finds_a_boundary_just_inside_the_ball_and_none_finds_one_outside(
    attack, norm
):
    """One linear submodel: the distance to its boundary is b over the dual norm of w."""
    weights = [0.6, -0.8]
    dual = 1.4 if norm == "Linf" else 1.0
    for share, fooled in ((0.95, True), (1.05, False)):
        problem = problem_of([Linear(weights, 0.3 * share * dual)], 8, norm, eps=0.3)
        found = run(
            attack,
            Population(problem.population.submodels),
            problem.images,
            problem.labels,
            problem.threat_model,
        )
        correctness = problem.correctness(found, torch.arange(8))
        expected = 0.0 if fooled else 1.0
        # Random squares cannot point a vector of two pixels just anywhere in the L2 ball.
        if attack != "square-population" or norm == "Linf" or not fooled:
            assert correctness.tolist() == [expected] * 8


class Misleading(nn.Module):
    """Fooled only by the left half that squares find beside the right half that gradients find.

    Of an image 1 x 16 x 16 around 1/2, u is the left half's mean and v the right half's alignment
    with a checkerboard, in units of eps. The margin g(u) + v - 6.25, with g falling from 1 at -1 to
    -1/4 at 1/4 and rising to 5.75 at 1, is positive only where u is near 1 and v above 1/2.
    Gradients lead from a random point to u = -1; few squares align with a checkerboard.
    """

    def __init__(self, eps):
        super().__init__()
        self.eps = eps
        self.checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 4)

    def forward(self, images):
        offset = (images[:, 0] - 0.5) / self.eps
        u = offset[:, :, :8].mean((1, 2))
        v = (offset[:, :, 8:] * self.checkerboard).mean((1, 2))
        margin = torch.where(u < 0.25, -u, 8 * (u - 0.25) - 0.25) + v - 6.25
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def test_queries_lead_gradients_to_where_neither_gets_alone():
    images = torch.full((16, 1, 16, 16), 0.5)
    labels = torch.zeros(16, dtype=torch.int64)
    population = Population([Misleading(0.1)])

    def left(attack):
        found = run(attack, population, images, labels, ThreatModel("Linf", 0.1))
        return population.correct(found, labels, batch_size=16).float().mean().item()

    assert left("pgd-mean-ce") == left("apgd-population") == left("square-population") == 1
    assert left("worst-case") < 0.9


def test_arc_serves_the_likelier_submodel_first():
    """Only one of two opposite submodels can be fooled."""
    submodels = [Linear([1.0, 0.0], 0.2), Linear([-1.0, 0.0], 0.2)]
    for probabilities, fooled in (((0.9, 0.1), 0), ((0.1, 0.9), 1)):
        problem = problem_of(submodels, 4, "Linf", eps=0.3)
        incumbent = Incumbent(problem.images)
        arc(
            problem,
            incumbent,
            steps=5,
            radius=0.1,
            candidates=1,
            probabilities=probabilities,
            start=problem.images,
        )
        right = problem.logits(incumbent.images).argmax(-1) == 0
        assert right[fooled].any().item() is False
        assert right[1 - fooled].all().item() is True


def mlp_population(count=4, seed=0):
    torch.manual_seed(seed)
    nets = [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5))
        for _ in range(count)
    ]
    return Population(nets).eval()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.3)])
def test_the_cascade_is_no_weaker_than_any_part(norm, eps):
    population = mlp_population()
    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = population.submodels[0](images).argmax(-1)
    threat_model = ThreatModel(norm, eps)
    left = {
        attack: population.correct(
            run(attack, population, images, labels, threat_model), labels, batch_size=32
        )
        .float()
        .mean()
        .item()
        for attack in PARAMETERS
    }
    assert left["worst-case"] <= min(left.values()) + 0.01
    assert left["worst-case"] < population.correct(images, labels, batch_size=32).float().mean()


def test_the_incumbent_keeps_the_lowest_correctness_then_the_highest_loss():
    images = torch.zeros(2, 1, 1, 1)
    incumbent = Incumbent(images)
    both = torch.tensor([0, 1])

    def offer(value, correctness, loss):
        incumbent.offer(
            both, torch.full_like(images, value), torch.tensor(correctness), torch.tensor(loss)
        )

    offer(1.0, [0.5, 0.5], [0.0, 0.0])
    offer(2.0, [1.0, 0.0], [9.0, -9.0])
    offer(3.0, [0.5, 0.0], [1.0, -9.5])
    assert incumbent.images.flatten().tolist() == [3.0, 2.0]
    assert incumbent.alive.tolist() == [0]


def test_finished_images_are_not_computed_again():
    seen = []

    class Watched(Linear):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    problem = problem_of([Watched([1.0, 1.0], 0.01)], 8, "Linf", eps=0.3)
    incumbent = Incumbent(problem.images)
    search.pgd(problem, incumbent, LOSSES["mean-ce"], steps=50, start=problem.images)
    assert incumbent.alive.numel() == 0
    assert sum(seen) <= 8 * 3


def test_the_cascade_ends_where_no_image_is_left():
    """Many networks reshape with -1, which an empty batch leaves undefined."""

    class Reshaping(Linear):
        def forward(self, images):
            return super().forward(images.view(images.size(0), -1, 1, 2))

    problem = problem_of([Reshaping([1.0, 1.0], 0.01)], 8, "Linf", eps=0.3)
    population = Population(problem.population.submodels)
    found = run("worst-case", population, problem.images, problem.labels, problem.threat_model)
    assert problem.correctness(found, torch.arange(8)).tolist() == [0.0] * 8


def test_squares_shrink_from_most_of_the_image_to_a_pixel():
    sides = [square.side_length(step, 1000, 32, 32) for step in range(1000)]
    assert sides[0] == 29
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] <= 2


def test_the_oracle_is_asked_once_per_image_and_query_by_a_fresh_draw():
    calls = []

    class Watched(Linear):
        def forward(self, images):
            calls.append((id(self), len(images)))
            return super().forward(images)

    problem = problem_of([Watched([1.0, 1.0], 5.0) for _ in range(3)], 6, "Linf", eps=0.3)
    with torch.no_grad():
        square.square_oracle(problem, queries=40)
    # One for the first point, then pairs: 39 of 40.
    assert sum(count for _, count in calls) == 6 * 39
    assert len({name for name, _ in calls}) == 3
