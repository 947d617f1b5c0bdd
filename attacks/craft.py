"""From images to perturbed images: draw the surrogate, run the attack, check the result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from .draws import in_blocks
from .freezing import frozen
from .registry import Attack
from .seeding import derive_seed, generator, global_seed
from .threat_model import ThreatModel


class AttackError(RuntimeError):
    """An attack that broke its contract: wrong shape, not finite, outside the threat model."""


class PopulationLike(Protocol):
    """What an attack may know of a population: everything but the draw.

    Attributes:
        chunk: how many images are best differentiated at once; None: any number.
        blocks: a network (n * B, C, H, W) -> (n * B, K) that answers block i of a batch with
            submodel i, where that is faster than one submodel after another; else None.
    """

    submodels: nn.ModuleList
    draws: int
    chunk: int | None
    blocks: nn.Module | None

    @property
    def rough(self) -> PopulationLike | None:
        """The same in low precision, where that is faster; what is seen through it is confirmed."""

    @property
    def weights(self) -> Tensor | None:
        """The probability of each row of `logits`, (n * draws,); None: all alike."""

    @property
    def random(self) -> bool:
        """Whether members are random in themselves."""

    def drawn(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """The numbers of so many drawn members, (count,)."""

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (N, K) of a draw made for this call."""

    def logits(self, images: Tensor) -> Tensor:
        """The logits (n * draws, N, K) of all members, or of fresh draws of each."""


class Drawn(nn.Module):
    """A submodel in evaluation mode, with a rough copy for searches; see `PopulationLike`."""

    def __init__(self, member: nn.Module, rough: nn.Module) -> None:
        super().__init__()
        # In a tuple torch does not see it: it is no part of what is attacked.
        self.member, self._rough = member, (rough,)
        self.training = False

    @property
    def rough(self) -> nn.Module:
        """The same in low precision."""
        return self._rough[0]

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        logits: Tensor = self.member(images)
        return logits


class HeldDraws(nn.Module):
    """Draws of a random member held fixed: block i of a batch always meets draw i.

    An attack that drops images in between, as AutoAttack does, gets one block, and gives the images
    that stay other noise where noise is drawn for each image.
    """

    def __init__(self, member: nn.Module, seed: int, blocks: int = 1) -> None:
        super().__init__()
        self.member = member
        self._seed, self._blocks = seed, blocks

    def forward(self, images: Tensor) -> Tensor:
        """(blocks * N, C, H, W) -> (blocks * N, K)."""
        with global_seed(self._seed, images.device):
            return in_blocks(self.member, images.unflatten(0, (self._blocks, -1))).flatten(0, 1)


class Kept(Protocol):
    """Where an attack's work survives being killed, block by block."""

    def get(self, name: str) -> Tensor | None:
        """A block's perturbed images, if they were kept."""

    def put(self, name: str, images: Tensor, seconds: float) -> None:
        """Keep a block's perturbed images, and the time they took."""


@dataclass(frozen=True)
class Crafted:
    """Perturbed images (N, C, H, W), and the submodel each was crafted on, (N,) or None."""

    images: Tensor
    surrogates: Tensor | None


def craft(
    attack: Attack,
    population: PopulationLike,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    *,
    seed: int,
    parameters: Mapping[str, Any],
    batch_size: int,
    images_per_draw: int = 1,
    kept: Kept | None = None,
) -> Crafted:
    """Perturb every image once, as the paper's attacker does (Section 3, Eq. 6).

    An attack on a submodel gets one draw for every `images_per_draw` consecutive images (1 is the
    paper's Eq. 6; its released code draws once per batch of 100): a drawn member, and of a random
    one a draw that is held fixed. An attack on the population gets the population. Members are in
    evaluation mode meanwhile.

    Args:
        images: (N, C, H, W) in [0, 1]; labels: (N,).
        seed: all randomness follows from it.
        batch_size: most images perturbed at once.
        kept: what an earlier, interrupted call with the same arguments has done already.

    Raises:
        AttackError: the attack left the threat model or returned something else than images.
        ValueError: the attack does not support the norm.
    """
    if threat_model.norm not in attack.norms:
        raise ValueError(
            f"attack {attack.name!r} supports {', '.join(attack.norms)}, not {threat_model.norm}"
        )
    surrogates = draws = None
    if attack.surrogate == "submodel":
        draws = population.drawn(-(-len(images) // images_per_draw), generator(seed, "surrogate"))
        surrogates = draws.repeat_interleave(images_per_draw)[: len(images)]
    perturbed = images.clone()
    with frozen(cast("nn.Module", population)):
        if draws is not None and population.random:
            blocks = torch.arange(len(images)).split(images_per_draw)
            batches = list(_drawn_batches(attack, population, draws, blocks, batch_size, seed))
        else:
            batches = list(_batches(attack, population, surrogates, len(images), batch_size))
        progress = tqdm(batches, attack.name, leave=False, disable=None)
        for number, (model, batch, wanted) in enumerate(progress):
            if threat_model.eps == 0:
                continue
            at = batch.to(images.device)
            start = time.perf_counter()
            found = kept.get(str(number)) if kept else None
            if found is not None:
                result = found.to(images.device)
            else:
                with global_seed(derive_seed(seed, "attack", number), images.device):
                    result = attack.function(
                        model,
                        images[at].clone(),
                        labels[at].clone(),
                        threat_model=threat_model,
                        **parameters,
                    )
            if problem := threat_model.violation(result, images[at]):
                raise AttackError(f"attack {attack.name!r} {problem}")
            if kept and found is None:
                kept.put(str(number), result, time.perf_counter() - start)
            result, at = result[wanted], at[wanted]
            perturbed[at] = threat_model.project(result, images[at])
    return Crafted(perturbed, surrogates)


# A model, the images' indices, and which of them are wanted.
Batch = tuple[PopulationLike | nn.Module, Tensor, Tensor]


def _drawn_batches(
    attack: Attack,
    population: PopulationLike,
    draws: Tensor,
    blocks: Sequence[Tensor],
    batch_size: int,
    seed: int,
) -> Iterator[Batch]:
    """Of random members: each block of images gets a draw of its own, held fixed."""
    together = max(1, batch_size // len(blocks[0])) if attack.gradient_only else 1
    for number, member in enumerate(population.submodels):
        own = torch.nonzero(draws == number).flatten()
        for part in own.split(together) if len(own) else ():
            indices, wanted = side_by_side([blocks[block] for block in part.tolist()])
            model = HeldDraws(member, derive_seed(seed, "draw", *part[:1].tolist()), len(part))
            yield model, indices, wanted


def side_by_side(blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Blocks of indices filled up to one size, flat, and which of the indices are wanted."""
    padded = pad_sequence(list(blocks), batch_first=True, padding_value=-1).flatten()
    return padded.clamp_min(0), padded >= 0


def _batches(
    attack: Attack,
    population: PopulationLike,
    surrogates: Tensor | None,
    count: int,
    batch_size: int,
) -> Iterator[Batch]:
    """Of deterministic members, or of all; images that are not wanted fill blocks up."""
    if surrogates is None:
        groups = [torch.arange(count)]
        models: list[PopulationLike | nn.Module] = [population]
    else:
        models = list(population.submodels)
        if population.rough:
            rough = population.rough.submodels
            models = [Drawn(m, r) for m, r in zip(population.submodels, rough, strict=True)]
        groups = [torch.nonzero(surrogates == i).flatten() for i in range(len(models))]
        if attack.gradient_only and population.blocks is not None:
            block = max(1, batch_size // len(groups))
            block = min(block, population.chunk or block)
            for first in range(0, max(map(len, groups)), block):
                own = [group[first : first + block] for group in groups]
                yield population.blocks, *side_by_side(own)
            return
    for model, group in zip(models, groups, strict=True):
        for batch in group.split(batch_size):
            if len(batch):
                yield model, batch, torch.ones(len(batch), dtype=torch.bool)


def one_each(population: PopulationLike, images: Tensor, members: Tensor) -> Tensor:
    """The logits (N, K) of deterministic members, each asked for its own images.

    Args:
        images: (N, C, H, W); members: which one each is for, (N,).
    """
    groups = [torch.nonzero(members == k).flatten() for k in range(len(population.submodels))]
    order = torch.cat(groups).argsort()
    # A block is as long as the longest: for few members of many, one by one is less work.
    blocks = population.blocks if max(map(len, groups)) * len(groups) <= 2 * len(images) else None
    if blocks is None:
        asked = zip(population.submodels, groups, strict=True)
        return torch.cat([member(images[own]) for member, own in asked if len(own)])[order]
    indices, wanted = side_by_side(groups)
    logits: Tensor = blocks(images[indices])
    return logits[wanted][order]
