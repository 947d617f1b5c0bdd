"""Searching the ball for the image that the fewest submodels classify correctly.

The engines here work on a whole population at once and share one idea of progress: the incumbent,
per image the best point found so far by expected correctness s_j. An image at s_j = 0 is finished
and leaves the computation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attacks.craft import PopulationLike
from attacks.objectives import Loss, expected_correctness
from attacks.threat_model import ThreatModel


class Incumbent:
    """The best perturbed image so far for each image, by s_j and then by loss.

    Args:
        images: (N, C, H, W) clean images, the first incumbent.

    Attributes:
        images: (N, C, H, W).
        correctness: (N,) s_j of `images`; infinite until measured.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.correctness = torch.full((len(images),), torch.inf, device=images.device)
        self._loss = torch.full((len(images),), -torch.inf, device=images.device)

    def offer(self, at: Tensor, images: Tensor, correctness: Tensor, loss: Tensor) -> None:
        """Take what is better; `at` (M,) holds the indices of the M images offered."""
        old = self.correctness[at]
        better = (correctness < old) | ((correctness == old) & (loss > self._loss[at]))
        taken = at[better]
        self.images[taken] = images[better]
        self.correctness[taken] = correctness[better]
        self._loss[taken] = loss[better]

    def forget_loss(self) -> None:
        """Compare by s_j alone from here: losses of another kind are not comparable."""
        self._loss.fill_(-torch.inf)

    @property
    def alive(self) -> Tensor:
        """Indices of the images that some submodel still classifies correctly."""
        return torch.nonzero(self.correctness > 0).flatten()


@dataclass(frozen=True)
class Problem:
    """A population under attack.

    Attributes:
        population: in evaluation mode, without gradients of weights.
        images: (N, C, H, W), clean.
        labels: (N,).
    """

    population: PopulationLike
    images: Tensor
    labels: Tensor
    threat_model: ThreatModel

    @cached_property
    def scale(self) -> Tensor:
        """Each submodel's logit spread over the classes, the mean over the clean images: (n,)."""
        with torch.no_grad():
            return self.logits(self.images).std(-1).mean(1).clamp_min(1e-6)

    def logits(self, images: Tensor) -> Tensor:
        """(M, C, H, W) -> (n, M, K), in double precision where the device has it.

        On a confident network float32 rounds the cross-entropy's gradient to zero.
        """
        logits = self.population.logits(images)
        return logits if logits.device.type == "mps" else logits.double()

    @torch.no_grad()
    def correctness(self, images: Tensor, at: Tensor) -> Tensor:
        """s_j of perturbed images (M, C, H, W) that belong to the images `at` (M,)."""
        return expected_correctness(self.logits(images), self.labels[at])

    def evaluate(
        self, images: Tensor, at: Tensor, loss: Loss, targets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (M,), s_j (M,) and the loss's gradient (M, C, H, W), all exact."""
        size = self.population.chunk or len(at)
        found = []
        for first in range(0, len(at), size):
            chunk = slice(first, first + size)
            labels = self.labels[at[chunk]]
            with torch.enable_grad():
                leaf = images[chunk].detach().requires_grad_()
                logits = self.logits(leaf)
                values = loss(logits, labels, self.scale, _pick(targets, chunk))
                (gradient,) = torch.autograd.grad(values.sum(), leaf)
            correctness = expected_correctness(logits.detach(), labels)
            found.append((values.detach().to(leaf.dtype), correctness.to(leaf.dtype), gradient))
        values, correctness, gradient = (torch.cat(pieces) for pieces in zip(*found, strict=True))
        return values, correctness, gradient

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent under the norm, of norm 1 for each image."""
        if self.threat_model.norm == "Linf":
            return gradient.sign()
        # Squares of tiny gradients underflow: bring the largest entry to 1 first.
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-38)
        scaled = gradient / largest
        length = torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp_min(1e-12)
        unit: Tensor = scaled / length.view(-1, 1, 1, 1)
        return unit

    def random_start(self, at: Tensor) -> Tensor:
        """A random point of the ball around each of the images `at`."""
        noise = torch.rand_like(self.images[at]) * 2 - 1
        if self.threat_model.norm == "L2":
            noise = self.direction(torch.randn_like(noise))
            noise *= torch.rand(len(at), 1, 1, 1, device=noise.device)
        perturbed = self.images[at] + self.threat_model.eps * noise
        return self.threat_model.project(perturbed, self.images[at])


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
        unfinished = correctness > 0
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
    highest loss changed between two checkpoints.

    Args:
        start: (N, C, H, W); default: a random point of the ball.
        targets: (N,) classes for the margin losses; default: the best other class.
    """
    at = incumbent.alive
    if len(at) == 0:
        return
    checkpoints = apgd_checkpoints(steps)
    x = problem.random_start(at) if start is None else start[at].clone()
    values, correctness, gradient = problem.evaluate(x, at, loss, _pick(targets, at))
    incumbent.offer(at, x, correctness, values)
    count = len(at)
    device = x.device
    state = {
        "at": at,
        "x": x,
        "previous_x": x,
        "gradient": gradient,
        "value": values,
        "best_x": x,
        "best_gradient": gradient,
        "best_value": values,
        "step": torch.full((count,), 2 * problem.threat_model.eps, device=device),
        "raised": torch.zeros(count, device=device),
        "best_at_checkpoint": values,
        "halved": torch.ones(count, dtype=torch.bool, device=device),
        "done": correctness == 0,
    }
    last = 0
    for step in range(1, steps + 1):
        state = {name: tensor[~state["done"]] for name, tensor in state.items()}
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
        values, correctness, gradient = problem.evaluate(ahead, at, loss, _pick(targets, at))
        incumbent.offer(at, ahead, correctness, values)

        state["raised"] = state["raised"] + (values > state["value"])
        state |= {"previous_x": x, "x": ahead, "gradient": gradient, "value": values}
        state["done"] = correctness == 0
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


def _pick(targets: Tensor | None, at: Tensor | slice) -> Tensor | None:
    return None if targets is None else targets[at]


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """torch.where with a mask over the first dimension."""
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)
