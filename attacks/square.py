"""Square attack on populations: random search with queries and no gradients.

Andriushchenko et al., "Square Attack", ECCV 2020: its initial stripes, its squares and its schedule
for their size. For L2 the squares of noise are projected back to the ball, in place of the paper's
bookkeeping of the norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .objectives import Loss, expected_correctness, mean_margin, settled
from .problem import Incumbent, Problem

# The share of pixels a square covers at first, and when it halves, in steps of 10,000.
FIRST_SHARE = 0.8
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def side_length(step: int, steps: int, height: int, width: int) -> int:
    """The side of the square that is changed in a step."""
    scaled = step * 10_000 / steps
    halvings = sum(scaled > halving for halving in HALVINGS)
    share = FIRST_SHARE / 2**halvings
    return max(1, min(round(math.sqrt(share * height * width)), height, width))


def stripes(problem: Problem, at: Tensor) -> Tensor:
    """The first guess: a random sign for each column and channel, at full strength."""
    clean = problem.images[at]
    signs = torch.rand_like(clean[:, :, :1, :]).sub(0.5).sign()
    return _add(problem, clean, signs.expand_as(clean), clean, share=1.0)


def propose(problem: Problem, images: Tensor, at: Tensor, side: int) -> Tensor:
    """Each image with one random square set to a random corner of the ball, channel by channel."""
    count, channels, height, width = images.shape
    device = images.device
    top = torch.randint(height - side + 1, (count, 1, 1, 1), device=device)
    left = torch.randint(width - side + 1, (count, 1, 1, 1), device=device)
    rows = torch.arange(height, device=device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=device).view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    signs = torch.rand(count, channels, 1, 1, device=device, dtype=images.dtype).sub(0.5).sign()
    clean = problem.images[at]
    if problem.threat_model.norm == "Linf":
        changed = clean + problem.threat_model.eps * signs
        return problem.threat_model.project(torch.where(inside, changed, images), clean)
    share = side / math.sqrt(height * width)
    return _add(problem, images, inside * signs, clean, share=share)


def _add(
    problem: Problem, images: Tensor, pattern: Tensor, clean: Tensor, *, share: float
) -> Tensor:
    """Images plus a pattern, projected; in L2 the pattern's norm is a share of the radius."""
    eps = problem.threat_model.eps
    if problem.threat_model.norm == "L2":
        norm = torch.linalg.vector_norm(pattern.flatten(1), dim=1).clamp_min(1e-12)
        pattern = share * pattern / norm.view(-1, 1, 1, 1)
    return problem.threat_model.project(images + eps * pattern, clean)


@torch.no_grad()
def square_population(
    problem: Problem,
    incumbent: Incumbent,
    *,
    queries: int,
    start: Tensor | None = None,
    loss: Loss = mean_margin,
) -> Tensor:
    """Accept a square when the loss, by default the exact mean margin over all submodels, rises.

    One query is one image answered by all submodels.

    Args:
        start: (N, C, H, W); default: random stripes.

    Returns:
        (N, C, H, W): the points with the highest loss, which need not be the incumbent's; of
        finished images the incumbent's.
    """
    at = incumbent.alive
    if len(at) == 0:
        return incumbent.images
    height, width = problem.images.shape[-2:]
    images = stripes(problem, at) if start is None else start[at].clone()
    values = images.new_full((len(at),), -torch.inf)
    proposal = images
    for step in range(queries):
        if step:
            side = side_length(step, queries, height, width)
            proposal = propose(problem, images, at, side)
        logits = problem.seen(proposal, at)
        weights = problem.loss_weights(at)
        new = loss(settled(logits), problem.labels[at], weights, problem.scale, None)
        new = new.to(images.dtype)
        correctness = expected_correctness(logits, problem.labels[at], problem.weights)
        incumbent.offer(at, proposal, correctness, new)
        better = new > values
        images = torch.where(better.view(-1, 1, 1, 1), proposal, images)
        values = torch.where(better, new, values)
        unfinished = incumbent.unfinished(at)
        at, images, values = at[unfinished], images[unfinished], values[unfinished]
        if len(at) == 0:
            break
    reached = incumbent.images.clone()
    reached[at] = images
    return reached


@torch.no_grad()
def square_oracle(problem: Problem, *, queries: int) -> Tensor:
    """What an outsider can do: each query is answered by one fresh draw, and shows its margin.

    Half of the queries go to the point held, whose mean margin so far is what a proposal's single
    answer must beat; a lucky draw is so forgotten in time.

    Returns:
        (N, C, H, W), the points held when the queries are used up.
    """
    everything = torch.arange(len(problem.images), device=problem.images.device)
    height, width = problem.images.shape[-2:]
    held = stripes(problem, everything)
    total = _answer(problem, held)
    seen = torch.ones_like(total)
    steps = max(1, queries // 2)
    for step in range(1, steps):
        total = total + _answer(problem, held)
        seen = seen + 1
        proposal = propose(problem, held, everything, side_length(step, steps, height, width))
        answer = _answer(problem, proposal)
        better = answer > total / seen
        held = torch.where(better.view(-1, 1, 1, 1), proposal, held)
        total = torch.where(better, answer, total)
        seen = torch.where(better, torch.ones_like(seen), seen)
    return held


def _answer(problem: Problem, images: Tensor) -> Tensor:
    """The margin (N,) that one fresh draw for each image shows."""
    draws = problem.population.drawn(len(images)).to(images.device)
    values = images.new_empty(len(images))
    for submodel in draws.unique().tolist():
        mine = draws == submodel
        logits = problem.population.submodels[submodel](images[mine]).unsqueeze(0)
        margin = mean_margin(logits, problem.labels[mine], None, logits.new_ones(1), None)
        values[mine] = margin.to(values.dtype)
    return values
