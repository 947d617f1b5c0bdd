"""Training: one loop for every defense, epochs outside, submodels inside."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from attacks.seeding import derive_seed, generator, global_seed
from defenses.population import Population

logger = logging.getLogger(__name__)

Optimizers = Sequence[torch.optim.Optimizer]
Adversary = Callable[[nn.Module, Tensor, Tensor], Tensor]
BeforeStep = Callable[[Sequence[nn.Module], int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How each submodel is optimized.

    Attributes:
        optimizer: "adam", or "sgd" with Nesterov-free momentum.
        learning_rate: at the start.
        cosine: anneal the learning rate to 0 along a half cosine over the epochs.
        augment: random crop after padding by 4, and horizontal flip.
    """

    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    epochs: int
    batch_size: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    cosine: bool = False
    augment: bool = False


class Checkpoint(Protocol):
    """Where a training run survives being killed."""

    def restore(self, population: Population, optimizers: Optimizers, epochs: int) -> int:
        """Called once by each `train`: load its last completed epoch, return how many are done.

        A defense may train in several phases; a phase that a later one has followed is done, with
        all its `epochs`.
        """

    def save(self, population: Population, optimizers: Optimizers, epochs: int) -> None:
        """Keep the state after `epochs` epochs of the present phase."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training problem, as a defense receives it.

    Attributes:
        images: training images, (N, C, H, W) in [0, 1], on the device.
        labels: (N,) int64, on the device.
        recipe: the budget's recipe for this dataset.
        seed: all randomness follows from it, and from nothing else.
        load: another defense's population on the same data, budget and seed, trained if need be.
        checkpoint: where the run survives being killed.
    """

    images: Tensor
    labels: Tensor
    recipe: Recipe
    seed: int
    load: Callable[[str], Population]
    checkpoint: Checkpoint | None = None


def train(
    population: Population,
    task: Task,
    recipe: Recipe,
    *,
    adversary: Adversary | None = None,
    before_step: BeforeStep | None = None,
) -> None:
    """Train all submodels at the same time: each finishes epoch e before any starts e + 1.

    On the CPU the result is a function of the arguments, bit for bit, whether or not the run was
    interrupted.

    Args:
        adversary: replaces each batch by adversarial images, crafted on the submodel in training;
            called with (submodel, images, labels) under a seeded global generator.
        before_step: called with (submodels, i, epoch, step) before each forward pass.
    """
    submodels = list(population.submodels)
    optimizers = [make_optimizer(submodel, recipe) for submodel in submodels]
    start = 0
    if task.checkpoint:
        start = task.checkpoint.restore(population, optimizers, recipe.epochs)
    steps = math.ceil(len(task.images) / recipe.batch_size)
    bar = tqdm(
        total=recipe.epochs * len(submodels) * steps,
        initial=start * len(submodels) * steps,
        desc=f"training {len(submodels)}",
        unit="step",
        leave=False,
        disable=None,
    )
    for epoch in range(start, recipe.epochs):
        total_loss = torch.zeros((), device=task.images.device)
        for i, (submodel, optimizer) in enumerate(zip(submodels, optimizers, strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, epoch)
            for step, (images, labels) in enumerate(batches(task, recipe, i, epoch)):
                if before_step:
                    before_step(submodels, i, epoch, step)
                if adversary:
                    drawn = derive_seed(task.seed, "adversary", i, epoch, step)
                    submodel.eval()
                    with global_seed(drawn, images.device):
                        images = adversary(submodel, images, labels)
                submodel.train()
                loss = F.cross_entropy(submodel(images), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total_loss += loss.detach()
                bar.update()
        if task.checkpoint:
            task.checkpoint.save(population, optimizers, epoch + 1)
        mean_loss = total_loss.item() / (len(submodels) * steps)
        logger.info("epoch %d of %d: loss %.4f", epoch + 1, recipe.epochs, mean_loss)
    bar.close()
    population.eval()


def initialise(build: Callable[[], nn.Module], submodels: int, *, seed: int) -> Population:
    """n freshly built submodels; submodel i depends on the seed and i alone.

    So `single` starts as the first submodel of `ulm`.
    """
    built = []
    for i in range(submodels):
        with global_seed(derive_seed(seed, "initialise", i), torch.device("cpu")):
            built.append(build())
    return Population(built)


def make_optimizer(submodel: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a submodel."""
    parameters = submodel.parameters()
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        parameters,
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate during an epoch, counted from 0."""
    if not recipe.cosine:
        return recipe.learning_rate
    return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def batches(
    task: Task, recipe: Recipe, submodel: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches for one submodel, in an order that is its own."""
    drawn = generator(task.seed, "batches", submodel, epoch)
    order = torch.randperm(len(task.images), generator=drawn).to(task.images.device)
    for chosen in order.split(recipe.batch_size):
        images = task.images[chosen]
        yield augment(images, drawn) if recipe.augment else images, task.labels[chosen]


def augment(images: Tensor, drawn: torch.Generator, padding: int = 4) -> Tensor:
    """Each image (C, H, W) of a batch, zero-padded, cropped at random and flipped by a coin."""
    count, _, height, width = images.shape
    device = images.device
    top, left = torch.randint(2 * padding + 1, (2, count, 1, 1), generator=drawn).to(device)
    rows = top + torch.arange(height, device=device).view(1, -1, 1)
    columns = left + torch.arange(width, device=device).view(1, 1, -1)
    flip = torch.rand(count, 1, 1, generator=drawn).to(device) < 0.5
    columns = torch.where(flip, columns.flip(-1), columns)
    padded = F.pad(images, [padding] * 4)
    at = torch.arange(count, device=device).view(-1, 1, 1)
    # Advanced indices around a slice put the channel last.
    return padded[at, :, rows, columns].permute(0, 3, 1, 2).contiguous()
