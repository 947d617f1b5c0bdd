"""Training: one loop for every defense, all submodels in step or in turn.

A population is trained as a few groups of submodels: one group that goes through a stacked network
in one pass, or a group for each submodel. Both give the same weights, up to the order of sums.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..attacks.freezing import frozen
from ..attacks.seeding import derive_seed, generator, global_seed
from .muon import Muon
from .population import Population
from .stacking import FrozenStack, InBlocks, Stack, stackable
from .surrogate import Plan

logger = logging.getLogger(__name__)

Adversary = Callable[[nn.Module, Tensor, Tensor], Tensor]
BeforeStep = Callable[[Sequence[nn.Module], range, int, int], None]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
AfterEpoch = Callable[[Population], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How each submodel is optimized.

    Attributes:
        optimizer: "adam", "sgd" with Nesterov-free momentum, or "muon".
        learning_rate: the highest.
        cosine: anneal the learning rate to 0 along a half cosine over the steps.
        augment: random crop after padding by 4, and horizontal flip in every other epoch.
        dtype: "bfloat16": activations may be so where that is faster, and the finished weights are
            rounded to half precision; "float32": neither.
        warmup: the share of the steps in which the learning rate first rises from 0.
        label_smoothing: the share of each label that all classes share.
    """

    optimizer: Literal["adam", "sgd", "muon"]
    learning_rate: float
    epochs: int
    batch_size: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    cosine: bool = False
    augment: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    warmup: float = 0.0
    label_smoothing: float = 0.0

    def facts(self) -> dict[str, Any]:
        """What names a population; options that came later only where they are used."""
        later = {"warmup": 0.0, "label_smoothing": 0.0}
        return {name: value for name, value in asdict(self).items() if later.get(name) != value}

    def entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of logits (B, K), for a loss of a defense's own."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)


class Checkpoint(Protocol):
    """Where a training run survives being killed."""

    def restore(self, population: Population, optimizer: torch.optim.Optimizer, epochs: int) -> int:
        """Called once by each `train`, a phase: load the state kept last, return how many are done.

        A phase that a later one has followed is done, with all its `epochs`.
        """

    def save(self, population: Population, optimizer: torch.optim.Optimizer, epochs: int) -> None:
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
        in_turn: within an epoch submodels train one after another, as in the script that the
            paper's authors released; otherwise in step. It matters to what compares submodels
            while they train.
        first: the number of the first submodel, where members of a population are trained apart.
        observe: called with (submodels, members, epoch, step) before each step of the submodels
            whose numbers are in `members`; it may look, not touch.
    """

    images: Tensor
    labels: Tensor
    recipe: Recipe
    seed: int
    load: Callable[[str], Population]
    checkpoint: Checkpoint | None = None
    plan: Plan = Plan(stacked=False, chunk=100, dtype="float32")  # noqa: RUF009
    in_turn: bool = False
    first: int = 0
    observe: BeforeStep | None = None


def train(
    population: Population,
    task: Task,
    recipe: Recipe,
    *,
    adversary: Adversary | None = None,
    before_step: BeforeStep | None = None,
    after_epoch: AfterEpoch | None = None,
    loss: Loss | None = None,
) -> None:
    """Train all submodels in step, or in turn within each epoch.

    On the CPU the result is a function of the arguments, bit for bit, whether or not the run was
    interrupted.

    Args:
        adversary: replaces each batch by adversarial images, crafted on the submodels in training;
            called with (model, images, labels) under a seeded global generator. The batch holds a
            block of images for each submodel, and `model`, in evaluation mode with constant
            weights, answers each block with its submodel: keep the batch whole and in order.
        before_step: called as `task.observe` is, and may change weights.
        after_epoch: called with the population before an epoch's state is kept; what it raises
            ends the training.
        loss: of a submodel on a batch, called with (submodel, images, labels) in place of the mean
            cross-entropy; submodels then go through one by one.
    """
    submodels, plan = list(population.submodels), task.plan
    in_step = plan.stacked and not task.in_turn and loss is None
    if in_step and stackable(submodels, trainable=True):
        groups = [_Group(slice(0, len(submodels)), submodels, plan)]
    else:
        groups = [_Group(slice(i, i + 1), [one], plan, loss) for i, one in enumerate(submodels)]
    low = recipe.dtype == task.plan.dtype == "bfloat16"
    precision = torch.autocast(task.images.device.type, torch.bfloat16, enabled=low)
    turns = [[group] for group in groups] if task.in_turn else [groups]
    optimizer = make_optimizer(groups, recipe)
    start = 0
    if task.checkpoint:
        start = task.checkpoint.restore(population, optimizer, recipe.epochs)
    steps = math.ceil(len(task.images) / recipe.batch_size)
    bar = tqdm(
        total=recipe.epochs * len(turns) * steps,
        initial=start * len(turns) * steps,
        desc=f"training {len(submodels)}",
        unit="step",
        leave=False,
        disable=None,
    )
    for epoch in range(start, recipe.epochs):
        total_loss = torch.zeros((), device=task.images.device)
        for turn in turns:
            start_of_turn = turn[0].members.start
            members = range(task.first + start_of_turn, task.first + turn[-1].members.stop)
            for step, (images, labels) in enumerate(batches(task, recipe, members, epoch)):
                for hook in (task.observe, before_step):
                    if hook:
                        hook(submodels, members, epoch, step)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = learning_rate(recipe, (epoch + step / steps) / recipe.epochs)
                # Without a gradient the optimizer leaves a weight and its state alone.
                optimizer.zero_grad(set_to_none=True)
                for group in turn:
                    first = group.members.start
                    own = slice(first - start_of_turn, group.members.stop - start_of_turn)
                    own_images, own_labels = images[own], labels[own]
                    where = (task.first + first, epoch, step)
                    if adversary:
                        drawn = derive_seed(task.seed, "adversary", *where)
                        with global_seed(drawn, images.device):
                            own_images = group.attacked(adversary, own_images, own_labels)
                    # What networks draw themselves: dropout, noise.
                    with global_seed(derive_seed(task.seed, "forward", *where), images.device):
                        with precision:
                            value = group.loss(own_images, own_labels, recipe.label_smoothing)
                        value.backward()
                        total_loss += value.detach()
                with precision:
                    optimizer.step()
                bar.update()
        if recipe.dtype == "bfloat16" and epoch + 1 == recipe.epochs:
            round_to_half(population)
        if after_epoch:
            after_epoch(population)
        if task.checkpoint:
            task.checkpoint.save(population, optimizer, epoch + 1)
        mean_loss = total_loss.item() / (len(submodels) * steps)
        logger.info("epoch %d of %d: loss %.4f", epoch + 1, recipe.epochs, mean_loss)
    bar.close()
    population.eval()


def initialise(build: Callable[[], nn.Module], submodels: int, *, seed: int) -> Population:
    """n freshly built submodels; number i depends on the seed and i alone."""
    built = []
    for i in range(submodels):
        with global_seed(derive_seed(seed, "initialise", i), torch.device("cpu")):
            built.append(build())
    return Population(built)


def load_inside(population: Population, trained: Population) -> None:
    """Copy trained members into the `network` of members that wrap one each."""
    for member, source in zip(population.submodels, trained.submodels, strict=True):
        member.get_submodule("network").load_state_dict(source.state_dict())


def make_optimizer(groups: Sequence[_Group], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters; each is updated by itself, whatever the group."""
    parameters = [
        {"params": list(group.network.parameters()), "networks": group.size} for group in groups
    ]
    rate, momentum, decay = recipe.learning_rate, recipe.momentum, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay, fused=True)
    if recipe.optimizer == "muon":
        return Muon(parameters, rate, momentum=momentum, weight_decay=decay)
    return torch.optim.SGD(parameters, rate, momentum, weight_decay=decay, fused=True)


def learning_rate(recipe: Recipe, done: float) -> float:
    """The learning rate when this share of the steps is done."""
    if done < recipe.warmup:
        return recipe.learning_rate * done / recipe.warmup
    if not recipe.cosine:
        return recipe.learning_rate
    falling = (done - recipe.warmup) / (1 - recipe.warmup)
    return recipe.learning_rate * (1 + math.cos(math.pi * falling)) / 2


@torch.no_grad()
def round_to_half(population: Population) -> None:
    """Round weights and statistics to what half precision holds."""
    for tensor in population.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


def batches(
    task: Task, recipe: Recipe, members: range, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches for some submodels: images (members, B, C, H, W) and labels (members, B).

    Each submodel has an order and augmentations of its own, which depend on the seed and its number
    alone. A coin says in which epochs an image is flipped, the odd or the even ones: any two
    epochs show both sides.
    """
    generators = [generator(task.seed, "batches", i, epoch) for i in members]
    count, device = len(task.images), task.images.device
    orders = torch.stack([torch.randperm(count, generator=drawn) for drawn in generators])
    coins = [torch.rand(count, generator=generator(task.seed, "flips", i)) < 0.5 for i in members]
    flips = torch.stack(coins).to(device) ^ (epoch % 2 == 1)
    for chosen in orders.to(device).split(recipe.batch_size, dim=1):
        images = task.images[chosen]
        if recipe.augment:
            parts = zip(images, flips.gather(1, chosen), generators, strict=True)
            images = torch.stack([augment(own, flip, drawn) for own, flip, drawn in parts])
        yield images, task.labels[chosen]


def augment(images: Tensor, flip: Tensor, drawn: torch.Generator, padding: int = 4) -> Tensor:
    """Each image (C, H, W) of a batch, zero-padded, cropped at random, and flipped if asked."""
    count, _, height, width = images.shape
    device = images.device
    top, left = torch.randint(2 * padding + 1, (2, count, 1, 1), generator=drawn).to(device)
    rows = top + torch.arange(height, device=device).view(1, -1, 1)
    columns = left + torch.arange(width, device=device).view(1, 1, -1)
    columns = torch.where(flip.view(-1, 1, 1), columns.flip(-1), columns)
    padded = F.pad(images, [padding] * 4)
    at = torch.arange(count, device=device).view(-1, 1, 1)
    # Advanced indices around a slice put the channel last.
    return padded[at, :, rows, columns].permute(0, 3, 1, 2).contiguous()


class _Group:
    """Submodels that are trained in one pass.

    Attributes:
        members: which of the population they are.
        size: how many.
        network: (g, B, C, H, W), block i for submodel i -> logits (g, B, K).
    """

    def __init__(
        self,
        members: slice,
        submodels: Sequence[nn.Module],
        plan: Plan,
        loss: Loss | None = None,
    ) -> None:
        self.members = members
        self._loss: Callable[[Tensor, Tensor], Tensor] | None = None
        self.size = len(submodels)
        self._frozen: FrozenStack | None = None
        self._copy: Callable[[], FrozenStack] | None = None
        if loss is None and stackable(submodels, trainable=True):
            self.network: nn.Module = Stack(submodels)
            self._copy = partial(FrozenStack, submodels, shared=False, dtype=plan.low_precision)
        else:
            (submodel,) = submodels
            self.network = _Alone(submodel)
            self._loss = loss and partial(loss, submodel)
        self.network.train()

    def loss(self, images: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """The mean over each submodel's batch (g, B, C, H, W), summed over submodels.

        Its gradients are those of g losses.
        """
        if self._loss:
            return self._loss(images[0], labels[0])
        flat = self.network(images).float().flatten(0, 1), labels.flatten()
        summed = F.cross_entropy(*flat, reduction="sum", label_smoothing=label_smoothing)
        return summed / labels.shape[1]

    def attacked(self, adversary: Adversary, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images (g, B, C, H, W) for the submodels as they are now."""
        if self._frozen:
            self._frozen.refresh()
        elif self._copy:
            # Where nobody attacks, no copy of the weights is made.
            self._frozen = self._copy()
        with frozen(self.network):
            model = InBlocks(self._frozen or self.network, len(images))
            perturbed = adversary(model, images.flatten(0, 1), labels.flatten())
        return perturbed.detach().view_as(images)


class _Alone(nn.Module):
    """A stack of one that is no stack."""

    def __init__(self, submodel: nn.Module) -> None:
        super().__init__()
        self.submodel = submodel

    def forward(self, images: Tensor) -> Tensor:
        return self.submodel(images[0]).unsqueeze(0)  # type: ignore[no-any-return]
