"""A population as an attack computes with it: the same function, faster.

Weights are constant, batch norm is folded into convolutions, and all submodels go through one
stacked network where that is faster. What is scored is the population itself, never this copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.population import Population
from defenses.stacking import FrozenStack, InBlocks, stackable


@dataclass(frozen=True)
class Plan:
    """How to compute; `tuning` finds what is fastest.

    Attributes:
        stacked: all submodels in one pass, rather than one after another.
        chunk: images in one pass, forward and backward.
        dtype: for gradients that may be imprecise: "float32" or "bfloat16".
    """

    stacked: bool
    chunk: int
    dtype: str

    def __str__(self) -> str:
        return f"{'stacked' if self.stacked else 'one by one'}, {self.chunk} at once, {self.dtype}"

    @classmethod
    def parse(cls, text: str) -> Plan:
        """The plan that `str` gave.

        Raises:
            ValueError: it gave no such text.
        """
        found = re.fullmatch(r"(stacked|one by one), (\d+) at once, (float32|bfloat16)", text)
        if not found:
            raise ValueError(f"{text!r} is no plan")
        return cls(stacked=found[1] == "stacked", chunk=int(found[2]), dtype=found[3])

    @property
    def low_precision(self) -> torch.dtype:
        """`dtype` as torch knows it."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.dtype]


class Surrogate(Population):
    """A copy of a population's present weights, prepared for being attacked.

    Submodels whose code is not known to `stacking` are taken as they are.

    Args:
        low_precision: compute in the plan's dtype; else in float32.
    """

    def __init__(self, population: Population, plan: Plan, *, low_precision: bool = False) -> None:
        dtype = plan.low_precision if low_precision else torch.float32
        submodels = list(population.submodels)
        super().__init__(
            [_Folded(one, dtype) if stackable([one]) else one for one in submodels],
            chunk=plan.chunk,
        )
        self._stack: FrozenStack | None = None
        if plan.stacked and stackable(submodels):
            self._stack = FrozenStack(submodels, shared=True, dtype=dtype)
            self.blocks = InBlocks(FrozenStack(submodels, shared=False, dtype=dtype), len(self))
        # In evaluation mode itself; submodels that are no copies keep theirs.
        self.training = False
        for module in self.modules():
            if isinstance(module, (FrozenStack, _Folded, InBlocks)):
                module.eval()

    def refresh(self) -> None:
        """Take over the population's present weights and statistics."""
        for module in self.modules():
            if isinstance(module, FrozenStack):
                module.refresh()

    def logits(self, images: Tensor) -> Tensor:
        """As `Population.logits`, in passes of `chunk` images."""
        answer = self._stack or super().logits
        chunks = images.split(self.chunk or len(images))
        return torch.cat([answer(chunk) for chunk in chunks], dim=1)


class _Folded(nn.Module):
    """One submodel as a stack of one: (N, C, H, W) -> (N, K)."""

    def __init__(self, submodel: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.stack = FrozenStack([submodel], shared=True, dtype=dtype)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.stack(images)[0]
        return logits
