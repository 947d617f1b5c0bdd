"""ARC: attacking randomized ensembles one classifier at a time.

Dbouk and Shanbhag, "Adversarial Vulnerability of Randomized Ensembles", ICML 2022, Algorithm 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Incumbent, Problem

# The margin by which a boundary is overstepped, as a share of eps.
OVERSTEP = 0.05


def nearest_boundary(
    problem: Problem, submodel: int, images: Tensor, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest linearized decision boundary of one submodel around its present answer.

    Args:
        images: (M, C, H, W).
        candidates: how many rival classes, by falling logit, are considered.

    Returns:
        The distance to it (M,); the direction of norm 1 that leads there (M, C, H, W); and the
        boundary's normal, scaled so that its inner product with a perturbation is the distance
        travelled towards the boundary (M, C, H, W).
    """
    dual = 1 if problem.threat_model.norm == "Linf" else 2
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        top = problem.population.submodels[submodel](images).topk(candidates + 1, dim=-1).values
        gaps = top[:, :1] - top[:, 1:]
        gradients = [
            torch.autograd.grad(gaps[:, rival].sum(), images, retain_graph=True)[0]
            for rival in range(candidates)
        ]
    lengths = torch.stack(
        [torch.linalg.vector_norm(g.flatten(1), dual, dim=1) for g in gradients], dim=1
    ).clamp_min(1e-10)
    distances, chosen = (gaps.detach() / lengths).min(dim=1)
    rows = torch.arange(len(images), device=images.device)
    gradient = torch.stack(gradients)[chosen, rows]
    normal = -gradient / lengths[rows, chosen].view(-1, 1, 1, 1)
    return distances, problem.direction(-gradient), normal


@torch.no_grad()
def arc(
    problem: Problem,
    incumbent: Incumbent,
    *,
    steps: int,
    candidates: int,
    start: Tensor | None = None,
) -> None:
    """In every step, build a local perturbation that fools one more submodel after another.

    Submodels are visited by falling probability. For each, the local perturbation, of norm eps / 4,
    is turned towards the submodel's nearest boundary as far as it takes to cross it, and kept if
    the expected correctness does not rise.

    Args:
        candidates: rival classes considered for the nearest boundary.
        start: (N, C, H, W); default: a random point of the ball.
    """
    radius = problem.threat_model.eps / 4
    population = problem.population
    rows = len(population.submodels) * population.draws
    weights = torch.full((rows,), 1 / rows) if population.weights is None else population.weights
    # Each visit of a random member meets a fresh draw of it.
    visits = (weights.argsort(descending=True, stable=True) // population.draws).tolist()

    def scaled(perturbation: Tensor) -> Tensor:
        """The same direction with norm `radius`."""
        norm = problem.threat_model.distance(perturbation, torch.zeros_like(perturbation))
        return radius * perturbation / norm.clamp_min(1e-10).view(-1, 1, 1, 1)

    classes = problem.population.submodels[0](problem.images[:1]).shape[-1]
    candidates = min(candidates, classes - 1)
    at = incumbent.alive
    if len(at) == 0:
        return
    x = problem.random_start(at) if start is None else start[at].clone()
    lowest = problem.correctness(x, at)
    incumbent.offer(at, x, lowest, -lowest)
    for _ in range(steps):
        unfinished = incumbent.unfinished(at)
        at, x, lowest = at[unfinished], x[unfinished], lowest[unfinished]
        if len(at) == 0:
            return
        local = torch.zeros_like(x)
        best = x
        for position, submodel in enumerate(visits):
            distance, direction, normal = nearest_boundary(problem, submodel, x + local, candidates)
            far = torch.full_like(distance, radius)
            if position:
                travelled = (normal * local).flatten(1).sum(1)
                needed = radius / (radius - distance).clamp_min(1e-10)
                needed = needed * (distance - travelled).abs() + OVERSTEP * problem.threat_model.eps
                far = torch.where(distance < radius, needed, far)
            # Answers may be of more precision than images.
            turned = scaled(local + far.view(-1, 1, 1, 1) * direction).to(x)
            images = problem.threat_model.project(x + turned, problem.images[at])
            correctness = problem.correctness(images, at)
            incumbent.offer(at, images, correctness, -correctness)
            accepted = (correctness <= lowest).view(-1, 1, 1, 1)
            local = torch.where(accepted, turned, local)
            best = torch.where(accepted, images, best)
            lowest = torch.minimum(correctness, lowest)
        x = best
