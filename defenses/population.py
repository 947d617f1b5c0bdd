"""A population: n submodels of which a query is answered by one drawn at random."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from attacks.freezing import frozen


class Population(nn.Module):
    """n submodels behind one interface.

    Args:
        submodels: modules that map images (N, C, H, W) in [0, 1] to logits (N, K).
        chunk: how many images are best differentiated at once; None: any number.

    Raises:
        ValueError: no submodel.
        TypeError: something that is not a module.
    """

    def __init__(self, submodels: Iterable[nn.Module], *, chunk: int | None = None) -> None:
        super().__init__()
        self.chunk = chunk
        self.blocks: nn.Module | None = None
        listed = list(submodels)
        if not listed:
            raise ValueError("a population needs at least 1 submodel, got 0")
        for submodel in listed:
            if not isinstance(submodel, nn.Module):
                raise TypeError(f"a submodel must be a torch.nn.Module, got {submodel!r}")
        self.submodels = nn.ModuleList(listed)

    def __len__(self) -> int:
        return len(self.submodels)

    def forward(self, images: Tensor) -> Tensor:
        """The deployed model: logits (N, K) of one submodel, drawn uniformly for this call.

        The draw comes from torch's global CPU generator, as dropout's does.
        """
        logits: Tensor = self.submodels[int(torch.randint(len(self), ()))](images)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """The logits of every submodel: (N, C, H, W) -> (n, N, K)."""
        return torch.stack([submodel(images) for submodel in self.submodels])

    @torch.no_grad()
    def correct(self, images: Tensor, labels: Tensor, *, batch_size: int) -> Tensor:
        """Whether submodel i classifies image j correctly, in evaluation mode.

        Args:
            images: (N, C, H, W) in [0, 1].
            labels: (N,).
            batch_size: most images classified at once.

        Returns:
            (n, N) bool, on the CPU.
        """
        batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        with frozen(self):
            rows = [(self.logits(batch).argmax(-1) == right).cpu() for batch, right in batches]
        return torch.cat(rows, dim=1)


def of_draws(module: nn.Module, draws: int) -> Population:
    """A population for a network whose own forward pass is random, such as added noise.

    It holds the same module `draws` times: each pass of each is a fresh draw, so an attack sees the
    mean over `draws` of them in every step, and what it selects is scored on others.
    """
    return Population([module] * draws)


class AveragedEnsemble(nn.Module):
    """The same submodels deployed as a deterministic ensemble that averages their probabilities."""

    def __init__(self, population: Population) -> None:
        super().__init__()
        self.population = population

    def forward(self, images: Tensor) -> Tensor:
        """The log of the mean probability, up to a constant: (N, C, H, W) -> (N, K)."""
        return self.population.logits(images).log_softmax(-1).logsumexp(0)
