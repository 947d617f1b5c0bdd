"""A population as an attack computes with it: the same function, faster.

Weights are constant, batch norm is folded into convolutions, and all submodels go through one
stacked network where that is faster. What is scored is the population itself, never this copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks.freezing import frozen
from ..attacks.seeding import global_seed
from .population import Population
from .stacking import FrozenStack, InBlocks, stackable

Network = Callable[[Tensor], Tensor]

# Passes differ by more than this where a network draws random numbers, not where a device rounds.
ROUNDING = 1e-3
_SEARCHES = ", searches in "


@dataclass(frozen=True)
class Plan:
    """How to compute; `tuning` finds what is fastest.

    Attributes:
        stacked: all submodels in one pass, rather than one after another.
        chunk: images in one pass, forward and backward.
        dtype: for gradients that may be imprecise: "float32" or "bfloat16".
        searches: for what searches see, who confirm in float32 what they find.
    """

    stacked: bool
    chunk: int
    dtype: str
    searches: str = "float32"

    def __str__(self) -> str:
        how = "stacked" if self.stacked else "one by one"
        searches = "" if self.searches == "float32" else f"{_SEARCHES}{self.searches}"
        return f"{how}, {self.chunk} at once, {self.dtype}{searches}"

    @classmethod
    def parse(cls, text: str) -> Plan:
        """The plan that `str` gave, as records keep it; ValueError: another text."""
        text, _, searches = text.partition(_SEARCHES)
        stacked, chunk, dtype = text.split(", ")
        numbers = stacked == "stacked", int(chunk.removesuffix(" at once")), dtype
        return cls(*numbers, searches or "float32")

    @property
    def low_precision(self) -> torch.dtype:
        """`dtype` as torch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


class Surrogate(Population):
    """A copy of a population's present weights, prepared for being attacked.

    Submodels whose code is not known to `stacking` are taken as they are, but for the networks
    inside them that are. Where a copy answers otherwise, as under a hook on all modules of torch,
    the originals are attacked.

    Args:
        low_precision: compute in the plan's dtype; else in float32.
        probe: images (N, C, H, W), a few, on which copies must answer as the originals do; None:
            they are not compared, and nothing inside of unknown code is copied.
    """

    def __init__(
        self,
        population: Population,
        plan: Plan,
        *,
        low_precision: bool = False,
        probe: Tensor | None = None,
    ) -> None:
        dtype = plan.low_precision if low_precision else torch.float32
        submodels = list(population.submodels)
        super().__init__(
            [_copy_of(one, dtype, probe) for one in submodels],
            probabilities=population.probabilities,
            draws=population.draws,
            chunk=plan.chunk,
        )
        self._stack: _Copied | None = None
        if plan.stacked and not population.random and stackable(submodels):
            self._stack = _Copied(submodels, dtype, probe)
            blocks = None if probe is None else probe.expand(len(self), *probe.shape)
            self.blocks = InBlocks(_Copied(submodels, dtype, blocks, shared=False), len(self))
        # In evaluation mode itself; members that are no copies keep theirs.
        self.training = False
        for module in self.modules():
            if isinstance(module, (_Copied, InBlocks)):
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


class _Copied(nn.Module):
    """A `FrozenStack` that is made when it is first needed: most attacks need one of several.

    The members themselves answer where it would answer a `probe` otherwise.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        dtype: torch.dtype,
        probe: Tensor | None,
        *,
        shared: bool = True,
    ) -> None:
        super().__init__()
        # A tuple, so that they are not registered as parts of the copy.
        self._members, self._dtype, self._shared = tuple(members), dtype, shared
        self._probe = probe
        self.stack: FrozenStack | None = None
        self._faithful = True

    def forward(self, images: Tensor) -> Tensor:
        if self.stack is None:
            with torch.inference_mode(False):
                self.stack = FrozenStack(self._members, shared=self._shared, dtype=self._dtype)
                if self._probe is not None:
                    self._faithful = _same(self._loop, self.stack, self._probe, self._dtype)
        logits: Tensor = self.stack(images) if self._faithful else self._loop(images)
        return logits

    def _loop(self, images: Tensor) -> Tensor:
        """As the stack, by the members one after another."""
        # As parts of something, they keep the modes that they are attacked in.
        with frozen(nn.ModuleList(self._members)):
            blocks = [images] * len(self._members) if self._shared else images
            return torch.stack([one(b) for one, b in zip(self._members, blocks, strict=True)])


class _Folded(_Copied):
    """One network as a stack of one: (N, C, H, W) -> (N, K)."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[0]


def _copy_of(member: nn.Module, dtype: torch.dtype, probe: Tensor | None) -> nn.Module:
    """The member folded, or with its parts folded, if that answers as it does; else itself."""
    copied = _folded(member, dtype, probe)
    if copied is member or isinstance(copied, _Folded):
        return copied
    if probe is None:
        return member
    # As parts of something, they keep the modes that they are attacked in.
    with frozen(nn.ModuleList([member, copied])):
        return copied if _same(member, copied, probe, dtype) else member


def _same(original: Network, copied: Network, probe: Tensor, dtype: torch.dtype) -> bool:
    """Whether a copy that computes in a dtype answers a probe as the original does."""
    with torch.no_grad(), global_seed(0, probe.device):
        wanted = original(probe)
    try:
        with torch.no_grad(), global_seed(0, probe.device):
            answered = copied(probe)
    except Exception:  # It may look into its parts, and raise anything where one is another.
        return False
    # A GPU may round float32 to the ten bits of TF32.
    return alike(wanted, answered, 0.01 if dtype == torch.float32 else 0.1)


def alike(first: Tensor, second: Tensor, rounding: float = ROUNDING) -> bool:
    """Whether two passes gave the same logits, up to rounding."""
    rounding = max(rounding, 16 * torch.finfo(first.dtype).eps)
    finite = first[first.isfinite()].detach()
    spread = float(finite.std().nan_to_num()) if len(finite) > 1 else 0.0
    second = second.to(first)
    return torch.allclose(first, second, rounding, rounding * (spread or 1.0), equal_nan=True)


def _folded(module: nn.Module, dtype: torch.dtype, probe: Tensor | None = None) -> nn.Module:
    """A network folded; around networks inside, shallow copies that share all other state."""
    if stackable([module]):
        return _Folded([module], dtype, probe)
    where = type(module).__module__
    if where.startswith("torch.") and not where.startswith("torch.nn.modules."):
        # Compiled, exported or parallel: it is more than its parts.
        return module
    return around(module, {name: _folded(part, dtype) for name, part in module.named_children()})


def around(module: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A shallow copy with these parts, sharing all other state; itself if they are its own."""
    if all(part is module.get_submodule(name) for name, part in parts.items()):
        return module
    copied = copy.copy(module)
    copied._modules = {**module._modules, **parts}
    return copied
