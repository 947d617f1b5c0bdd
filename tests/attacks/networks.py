"""Networks whose answers are known by hand, and attacks on them."""

import torch
from randomized_defense_bench.attacks import ATTACKS, ThreatModel, craft
from randomized_defense_bench.attacks.objectives import LOSSES
from randomized_defense_bench.attacks.problem import Problem
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.architectures import lenet5
from torch import nn


class Linear(nn.Module):
    """Logits (w . (x - 1/2) + b, 0) of a 1 x 1 x d image: class 0 while the first is positive."""

    def __init__(self, weights, bias):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.bias = bias

    def forward(self, images):
        first = (images - 0.5).flatten(1) @ self.weights + self.bias
        return torch.stack([first, torch.zeros_like(first)], dim=1)


class Coin(nn.Module):
    """Right with a given probability, whatever it is shown."""

    def __init__(self, right=0.5):
        super().__init__()
        self.right = right

    def forward(self, images):
        first = (torch.rand(len(images)) < self.right) + 0 * images.flatten(1).sum(1) - 0.5
        return torch.stack([first, torch.zeros_like(first)], dim=1)


class Double(nn.Module):
    """What it is shown, in double precision."""

    def forward(self, logits):
        return logits.double()


def telling(images):
    """An untrained network whose answers differ from image to image."""
    network = lenet5().eval()
    with torch.no_grad():
        network[-1].bias -= network(images).mean(0)
    return network


def problem_of(members, count=1, norm="L2", eps=0.4, **law):
    images = torch.full((count, 1, 1, 2), 0.5)
    labels = torch.zeros(count, dtype=torch.int64)
    return Problem(Population(members, **law), images, labels, ThreatModel(norm, eps))


def inconsistent():
    """Each submodel can be fooled alone, and the mean loss leads to where none is.

    With u = (x - 1/2) / eps: f = 1.1 u0 + 0.9 u1 + 1 and f' = -1.1 u0 + 0.9 u1 + 1. By symmetry the
    mean loss has no gradient in u0, and at its end, u = (0, -1), f = f' = 0.1: nothing is found.
    Yet at u = (-0.77, -0.63), f < 0: expected correctness 1/2 is there to be had.
    """
    return problem_of([Linear([1.1 / 0.4, 0.9 / 0.4], 1.0), Linear([-1.1 / 0.4, 0.9 / 0.4], 1.0)])


PARAMETERS = {
    **{f"pgd-{loss}": {"steps": 20, "restarts": 1} for loss in LOSSES},
    "apgd-population": {"steps": 20, "targets": 1},
    "arc": {"steps": 10, "candidates": 1},
    "square-population": {"queries": 200},
    "worst-case": {"steps": 20, "queries": 50, "members": 2, "cycles": 2},
}


def left(attack, problem, seed=0, **parameters):
    """What an attack leaves of a problem: s_j (N,)."""
    found = craft(
        ATTACKS[attack],
        problem.population,
        problem.images,
        problem.labels,
        problem.threat_model,
        seed=seed,
        parameters=PARAMETERS[attack] | parameters,
        batch_size=64,
    ).images
    return problem.correctness(found, torch.arange(len(found))).tolist()
