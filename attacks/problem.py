"""What all searches share: the population under attack, and the best point met for each image."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .craft import PopulationLike, one_each
from .objectives import Loss, expected_correctness, settled
from .spreading import SpreadPooling
from .threat_model import ThreatModel

Confirm = Callable[[Tensor, Tensor], Tensor]
# An s_j of 1, up to the rounding of a sum of probabilities: no s_j is higher.
SURE = 1 - 1e-6


class Incumbent:
    """The best perturbed image so far for each image, by s_j and then by loss.

    Args:
        images: the first incumbent.
        confirm: s_j (M,) of images (M, C, H, W) that belong to the images at (M,), by fresh draws
            and in full precision; None where a search sees s_j exactly. What looks better by the
            draws that it saw is taken only if other draws agree, or luck would be kept in place of
            strength.
        lucky: all that is offered is confirmed, since s_j was seen on draws. Else what fools nobody
            is not: where a search sees in low precision, s_j = 1 is the least that it can say.
        patient: a search goes on with an image after s_j = 0, to points that are fooled more surely
            and so fool others, too; it is finished when the search ends.

    Attributes:
        images: (N, C, H, W).
        correctness: (N,) s_j of `images`, or 1 where none was confirmed; infinite until measured.
    """

    def __init__(
        self,
        images: Tensor,
        confirm: Confirm | None = None,
        *,
        lucky: bool = True,
        patient: bool = False,
    ) -> None:
        self.images = images.clone()
        self.correctness = images.new_full((len(images),), torch.inf)
        self._loss = images.new_full((len(images),), -torch.inf)
        self._confirm, self._lucky, self._patient = confirm, lucky, patient

    def offer(self, at: Tensor, images: Tensor, correctness: Tensor, loss: Tensor) -> None:
        """Take what is better; `at` (M,) holds the indices of the M images offered."""
        old = self.correctness[at]
        better = self._better(at, correctness, loss)
        at, images, loss = at[better], images[better], loss[better].to(old.dtype)
        correctness = correctness[better].to(old.dtype)
        if self._confirm:
            asked = torch.ones_like(at, dtype=torch.bool) if self._lucky else correctness < SURE
            if asked.any():
                correctness[asked] = self._confirm(images[asked], at[asked]).to(old.dtype)
            if self._lucky:
                better = correctness <= self.correctness[at]
            else:
                better = self._better(at, correctness, loss)
            at, images, loss = at[better], images[better], loss[better]
            correctness = correctness[better]
        self.images[at] = images
        self.correctness[at] = correctness
        self._loss[at] = loss

    def _better(self, at: Tensor, correctness: Tensor, loss: Tensor) -> Tensor:
        """Which of the images offered are better than those held: (M,) bool."""
        old = self.correctness[at]
        return (correctness < old) | ((correctness == old) & (loss > self._loss[at]))

    def forget_loss(self) -> None:
        """Compare by s_j alone from here: losses of another kind are not comparable."""
        self._loss.fill_(-torch.inf)

    @property
    def alive(self) -> Tensor:
        """Indices of the images that some submodel still classifies correctly."""
        return torch.nonzero(self.correctness > 0).flatten()

    def unfinished(self, at: Tensor) -> Tensor:
        """Which of the images `at` (M,) a search goes on with: (M,) bool."""
        return (self.correctness[at] > 0) | self._patient


@dataclass(frozen=True)
class Problem:
    """A population under attack, in evaluation mode and without gradients of weights.

    Attributes:
        focus: by how much a loss weighs each row of `logits` for each image, (rows, N); None: by
            the row's probability.
        members: the one member that each image is searched against, (N,): it is the only row, and
            what others answer costs nothing; None: all members.
    """

    population: PopulationLike
    images: Tensor
    labels: Tensor
    threat_model: ThreatModel
    focus: Tensor | None = None
    members: Tensor | None = None

    @cached_property
    def weights(self) -> Tensor | None:
        """The probability of each row of `logits`, (rows,); None: all alike."""
        weights = None if self.members is not None else self.population.weights
        return None if weights is None else weights.to(self.images.device)

    def loss_weights(self, at: Tensor) -> Tensor | None:
        """What a loss of the images `at` (M,) weighs rows by: (rows,) or (rows, M); None: alike."""
        return self.weights if self.focus is None else self.focus[:, at]

    @property
    def confirm(self) -> Confirm | None:
        """What an incumbent is confirmed by; None: a search sees s_j exactly.

        Draws of their own where members are random, full precision where searches compute in less.
        """
        inexact = self.population.random or self.population.rough is not None
        return self.correctness if inexact else None

    def incumbent(self, start: Tensor | None = None) -> Incumbent:
        """The clean images, or others (N, C, H, W), as the best so far."""
        images = self.images if start is None else start
        incumbent = Incumbent(images, self.confirm, lucky=self.population.random)
        at = self._everything
        correctness = self.correctness(images, at)
        incumbent.offer(at, images, correctness, torch.full_like(correctness, -torch.inf))
        return incumbent

    @cached_property
    def scale(self) -> Tensor:
        """Each row's logit spread over the classes, the mean over the clean images: (rows,)."""
        with torch.no_grad():
            logits = settled(self.logits(self.images, self._everything))
            return logits.std(-1).mean(1).clamp_min(1e-6)

    @property
    def _everything(self) -> Tensor:
        return torch.arange(len(self.images), device=self.images.device)

    def logits(self, images: Tensor, at: Tensor) -> Tensor:
        """(M, C, H, W) -> (rows, M, K), a row for each member, or for each fresh draw of each.

        In double precision where the device has it: on a confident network float32 rounds the
        cross-entropy's gradient to zero.

        Args:
            at: the images that these belong to, (M,).
        """
        return self._answers(self.population, images, at)

    def seen(self, images: Tensor, at: Tensor) -> Tensor:
        """The same as a search may see it: in low precision, where that is faster."""
        return self._answers(self.population.rough or self.population, images, at)

    def _answers(self, population: PopulationLike, images: Tensor, at: Tensor) -> Tensor:
        if self.members is None:
            logits = population.logits(images)
        else:
            logits = one_each(population, images, self.members[at]).unsqueeze(0)
        return logits if logits.device.type == "mps" else logits.double()

    @torch.no_grad()
    def correctness(self, images: Tensor, at: Tensor) -> Tensor:
        """s_j of perturbed images (M, C, H, W) that belong to the images `at` (M,)."""
        return expected_correctness(self.logits(images, at), self.labels[at], self.weights)

    def evaluate(
        self,
        images: Tensor,
        at: Tensor,
        loss: Loss,
        targets: Tensor | None,
        *,
        spread: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (M,), s_j (M,) and the loss's gradient (M, C, H, W), over all rows, as `seen`.

        Args:
            spread: the gradient is that of `SpreadPooling`.
        """
        size = self.population.chunk or len(at)
        found = []
        for first in range(0, len(at), size):
            chunk = slice(first, first + size)
            labels = self.labels[at[chunk]]
            with torch.enable_grad():
                leaf = images[chunk].detach().requires_grad_()
                with SpreadPooling() if spread else nullcontext():
                    logits = self.seen(leaf, at[chunk])
                rows = settled(logits)
                weights = self.loss_weights(at[chunk])
                values = loss(rows, labels, weights, self.scale, pick(targets, chunk))
                (gradient,) = torch.autograd.grad(values.sum(), leaf)
            correctness = expected_correctness(logits.detach(), labels, self.weights)
            found.append((values.detach().to(leaf.dtype), correctness.to(leaf.dtype), gradient))
        values, correctness, gradient = (torch.cat(pieces) for pieces in zip(*found, strict=True))
        return values, correctness, gradient

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent under the norm, of norm 1 for each image."""
        # Where a network answers nothing finite, there is no direction.
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        if self.threat_model.norm == "Linf":
            return gradient.sign()
        # Squares of tiny gradients underflow: bring the largest entry to 1 first. A subnormal bound
        # would be flushed to zero.
        least = torch.finfo(gradient.dtype).smallest_normal
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(least)
        scaled = gradient / largest
        length = torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp_min(1e-12)
        unit: Tensor = scaled / length.view(-1, 1, 1, 1)
        return unit

    def random_start(self, at: Tensor) -> Tensor:
        """A random point of the ball around each of the images `at`."""
        noise = torch.rand_like(self.images[at]) * 2 - 1
        if self.threat_model.norm == "L2":
            noise = self.direction(torch.randn_like(noise))
            noise *= torch.rand(len(at), 1, 1, 1, device=noise.device, dtype=noise.dtype)
        perturbed = self.images[at] + self.threat_model.eps * noise
        return self.threat_model.project(perturbed, self.images[at])


def pick(targets: Tensor | None, at: Tensor | slice) -> Tensor | None:
    """The targets of some images, if there are targets."""
    return None if targets is None else targets[at]
