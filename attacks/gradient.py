"""Gradient ascent on losses of a whole population: PGD, MI-FGSM and APGD.

The engines share one idea of progress: the incumbent, per image the best point found so far by
expected correctness s_j. An image at s_j = 0 is finished and leaves the computation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .objectives import Loss
from .problem import Incumbent, Problem, pick
from .square import stripes


def pgd(
    problem: Problem,
    incumbent: Incumbent,
    loss: Loss,
    *,
    steps: int,
    momentum: float = 0.0,
    start: Tensor | None = None,
) -> None:
    """Projected gradient ascent with a step that falls from eps / 2 along a half cosine.

    With momentum it is MI-FGSM's update (Dong et al., CVPR 2018): the gradient is divided by its
    mean absolute value and added to `momentum` times the sum so far.

    Args:
        start: (N, C, H, W); default: a random point of the ball.
    """
    at = incumbent.alive
    images = problem.random_start(at) if start is None else start[at].clone()
    velocity = torch.zeros_like(images)
    for step in range(steps + 1):
        if len(at) == 0:
            return
        values, correctness, gradient = problem.evaluate(images, at, loss, None)
        incumbent.offer(at, images, correctness, values)
        if step == steps:
            return
        unfinished = incumbent.unfinished(at)
        at, images = at[unfinished], images[unfinished]
        gradient, velocity = gradient[unfinished], velocity[unfinished]
        if momentum:
            size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
            velocity = momentum * velocity + gradient / size
            gradient = velocity
        length = problem.threat_model.eps / 2 * (1 + math.cos(math.pi * step / steps)) / 2
        images = images + length * problem.direction(gradient)
        images = problem.threat_model.project(images, problem.images[at])


def apgd_checkpoints(steps: int) -> set[int]:
    """When APGD reconsiders its step: Croce and Hein, ICML 2020, Section 3.2."""
    previous, current = 0.0, 0.22
    found = set()
    while current <= 1 + 1e-9:
        # Sums such as 0.22 + 0.19 + 0.16 are off by rounding.
        found.add(math.ceil(current * steps - 1e-9))
        previous, current = current, current + max(current - previous - 0.03, 0.06)
    return found


def apgd(
    problem: Problem,
    incumbent: Incumbent,
    loss: Loss,
    *,
    steps: int,
    start: Tensor | None = None,
    targets: Tensor | None = None,
) -> None:
    """APGD (Croce and Hein, ICML 2020, Algorithm 1) on a loss of the whole population.

    The step starts at 2 eps and halves, going back to the point of highest loss, where fewer than
    75% of the steps since the last checkpoint raised the loss, or where neither the step nor the
    highest loss changed between two checkpoints. Gradients are those of `SpreadPooling`.

    Args:
        start: (N, C, H, W); default: stripes, which lie at corners of the ball.
        targets: (N,) classes for the margin losses; default: the best other class.
    """

    def evaluate(images: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return problem.evaluate(images, at, loss, pick(targets, at), spread=True)

    at = incumbent.alive
    if len(at) == 0:
        return
    checkpoints = apgd_checkpoints(steps)
    x = stripes(problem, at) if start is None else start[at].clone()
    values, correctness, gradient = evaluate(x, at)
    incumbent.offer(at, x, correctness, values)
    state = {
        "at": at,
        "x": x,
        "previous_x": x,
        "gradient": gradient,
        "value": values,
        "best_x": x,
        "best_gradient": gradient,
        "best_value": values,
        "step": x.new_full((len(at),), 2 * problem.threat_model.eps),
        "raised": x.new_zeros(len(at)),
        "best_at_checkpoint": values,
        "halved": torch.ones(len(at), dtype=torch.bool, device=x.device),
    }
    last = 0
    for step in range(1, steps + 1):
        unfinished = incumbent.unfinished(state["at"])
        if not unfinished.all():
            state = {name: tensor[unfinished] for name, tensor in state.items()}
        at, x = state["at"], state["x"]
        if len(at) == 0:
            return
        clean = problem.images[at]
        length = state["step"].view(-1, 1, 1, 1)
        ahead = x + length * problem.direction(state["gradient"])
        ahead = problem.threat_model.project(ahead, clean)
        inertia = 0.25 if step > 1 else 0.0
        ahead = x + (1 - inertia) * (ahead - x) + inertia * (x - state["previous_x"])
        ahead = problem.threat_model.project(ahead, clean)
        values, correctness, gradient = evaluate(ahead, at)
        incumbent.offer(at, ahead, correctness, values)

        state["raised"] = state["raised"] + (values > state["value"])
        state |= {"previous_x": x, "x": ahead, "gradient": gradient, "value": values}
        better = values > state["best_value"]
        for name in ("x", "gradient", "value"):
            best = f"best_{name}"
            state[best] = _where(better, state[name], state[best])
        if step in checkpoints:
            stuck = state["raised"] < 0.75 * (step - last)
            idle = ~state["halved"] & (state["best_at_checkpoint"] >= state["best_value"])
            halve = stuck | idle
            state["step"] = torch.where(halve, state["step"] / 2, state["step"])
            for name in ("x", "gradient", "value"):
                state[name] = _where(halve, state[f"best_{name}"], state[name])
            state["halved"] = halve
            state["best_at_checkpoint"] = state["best_value"]
            state["raised"] = torch.zeros_like(state["raised"])
            last = step


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """torch.where with a mask over the first dimension."""
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)
