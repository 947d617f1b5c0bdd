"""A population: n members of which a query is answered by one drawn at random."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..attacks.draws import in_blocks


class Population(nn.Module):
    """A random classifier with a known law: members, their probabilities, their own randomness.

    Args:
        members: modules that map images (N, C, H, W) in [0, 1] to logits (N, K).
        probabilities: (n,) with which a query is answered by each; None: uniform.
        draws: 1 where members are deterministic, and expectations over the law are exact. Where
            they draw random numbers in their forward pass: over how many fresh passes of each an
            expectation is estimated, two or more.
        chunk: how many images are best differentiated at once; None: any number.

    Raises:
        ValueError: no member, probabilities that are none, or draws below 1.
        TypeError: something that is not a module.
    """

    def __init__(
        self,
        members: Iterable[nn.Module],
        *,
        probabilities: Sequence[float] | None = None,
        draws: int = 1,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(members, nn.Module) and not isinstance(members, nn.ModuleList):
            kind = type(members).__name__
            own = ": population.submodels" if isinstance(members, Population) else f": [{kind}]"
            raise TypeError(f"members must be a list of modules, got one{own}")
        listed = list(members)
        if not listed:
            raise ValueError("a population needs at least 1 submodel, got 0")
        for member in listed:
            if not isinstance(member, nn.Module):
                raise TypeError(f"a submodel must be a torch.nn.Module, got {member!r}")
        if draws < 1:
            raise ValueError(f"draws must be 1 or more, got {draws}")
        self.probabilities = _law(probabilities, len(listed)) if probabilities is not None else None
        self.draws = draws
        self.chunk = chunk
        self.blocks: nn.Module | None = None
        self._rough: tuple[Population] | None = None
        if any(_dtype(member) != torch.float32 for member in listed):
            kept = (Cast, AveragedEnsemble)
            listed = [one if isinstance(one, kept) else Cast(one) for one in listed]
        self.submodels = nn.ModuleList(listed)

    def __len__(self) -> int:
        return len(self.submodels)

    @property
    def rough(self) -> Population | None:
        """The same in low precision, for searches that confirm what they find; no part of this."""
        return self._rough[0] if self._rough else None

    def searched_through(self, rough: Population) -> None:
        """Let searches see a copy in low precision."""
        # In a tuple torch does not see it.
        self._rough = (rough,)

    @property
    def random(self) -> bool:
        """Whether members are random in themselves."""
        return self.draws > 1

    @property
    def weights(self) -> Tensor | None:
        """The probability of each row of `logits`, (n * draws,) float64; None: all alike."""
        if self.probabilities is None:
            return None
        law = torch.tensor(self.probabilities, dtype=torch.float64) / self.draws
        return law.repeat_interleave(self.draws)

    def drawn(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """The numbers of so many drawn members, (count,), on the CPU.

        Args:
            generator: on the CPU; None: torch's global one.
        """
        if self.probabilities is None:
            return torch.randint(len(self), (count,), generator=generator)
        law = torch.tensor(self.probabilities, dtype=torch.float64)
        return law.multinomial(count, replacement=True, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """The deployed model: logits (N, K) of one member, drawn for this call.

        The draw comes from torch's global CPU generator, as dropout's does.
        """
        logits: Tensor = self.submodels[int(self.drawn(1))](images)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """The logits of every member, or of fresh draws: (N, C, H, W) -> (n * draws, N, K).

        The draws of one member are beside each other.
        """
        blocks = images.expand(self.draws, *images.shape)
        return torch.cat([in_blocks(member, blocks) for member in self.submodels])

    def of(self, members: Iterable[nn.Module]) -> Population:
        """Some of the members, or others made of them, as a population: as random, drawn alike."""
        return Population(members, draws=self.draws, chunk=self.chunk)


def _law(probabilities: Sequence[float], count: int) -> tuple[float, ...] | None:
    """Probabilities with the sum 1, whatever rounding their digits had; None: uniform."""
    law = [float(p) for p in probabilities]
    # Of NaN no comparison holds.
    if len(law) != count or not (all(p >= 0 for p in law) and abs(sum(law) - 1) <= 1e-6):
        raise ValueError(
            f"probabilities must be {count} numbers of 0 or more with sum 1, got {law}"
        )
    return None if max(law) == min(law) else tuple(p / sum(law) for p in law)


def _dtype(module: nn.Module) -> torch.dtype:
    """That of a module's first weights; without any it takes what it is given."""
    own = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
    return next(own, torch.float32)


class Cast(nn.Module):
    """A member of any precision, for images of any: it rounds them to its own."""

    def __init__(self, member: nn.Module) -> None:
        super().__init__()
        self.member = member

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K), in the images' precision."""
        logits: Tensor = self.member(images.to(_dtype(self.member)))
        return logits.to(images.dtype)


class AveragedEnsemble(nn.Module):
    """The same members deployed as one ensemble that averages probabilities, and draws."""

    def __init__(self, population: Population) -> None:
        super().__init__()
        self.population = population

    def forward(self, images: Tensor) -> Tensor:
        """The log of the mean probability, up to a constant: (N, C, H, W) -> (N, K)."""
        log_probability = self.population.logits(images).log_softmax(-1)
        weights = self.population.weights
        if weights is not None:
            log_probability = log_probability + weights.to(log_probability).log().view(-1, 1, 1)
        return log_probability.logsumexp(0)
