"""Fresh draws of a random network, several in one pass."""

from __future__ import annotations

import copy
import random
import warnings
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from .freezing import changed, held
from .seeding import global_seed

# Images in one pass beyond which more at once are no faster: by device, else the last.
PASS = {"cpu": 100, "other": 2000}
# Of a generator that a network keeps, so many passes show all but a rare coin.
PASSES = 12
_together: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def in_blocks(member: nn.Module, blocks: Tensor) -> Tensor:
    """Each block of images under a draw of its own: (b, N, C, H, W) -> (b, N, K)."""
    most = PASS.get(blocks.device.type, PASS["other"])
    count = min(len(blocks), max(1, most // max(1, blocks.shape[1])))
    if count == 1 or not _draws_together(member, blocks[:1, :1]):
        return torch.stack([member(block) for block in blocks])
    draw = torch.vmap(member, randomness="different")
    return torch.cat([draw(part) for part in blocks.split(count)])


class KnownDraw(nn.Module):
    """A random member under one draw, the same for every image, whatever its batch."""

    def __init__(self, member: nn.Module, seed: int) -> None:
        super().__init__()
        self.member, self._seed = member, seed

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        if len(images) and _draws_together(self.member, images[:1].unsqueeze(0)):
            with global_seed(self._seed, images.device):
                return torch.vmap(self._one, randomness="same")(images)
        return torch.cat([self._drawn(image) for image in images.split(1)])

    def _one(self, image: Tensor) -> Tensor:
        logits: Tensor = self.member(image.unsqueeze(0))[0]
        return logits

    def _drawn(self, image: Tensor) -> Tensor:
        with global_seed(self._seed, image.device):
            logits: Tensor = self.member(image)
        return logits


def forget_trials() -> None:
    """Try every network anew: one that was changed may draw otherwise than it did."""
    _together.clear()


def _draws_together(member: nn.Module, image: Tensor) -> bool:
    """Whether the network draws afresh for each block of a vectorized pass.

    It does where all that it draws comes from torch's global generators, as tensors: what Python or
    NumPy drew would be the same for all blocks. That moves their global generators; one that the
    network keeps gives another answer under the same seed. A copy is tried, and must keep nothing
    of a pass: a tensor of a vectorized one is of no use after it.
    """
    if member not in _together:
        blocks = image.detach().expand(4, *image.shape[1:])
        try:
            tried = copy.deepcopy(member)
            draw = torch.vmap(tried, randomness="different")
            with torch.no_grad(), warnings.catch_warnings():
                # vmap warns where it loops.
                warnings.simplefilter("error")
                with global_seed(0, image.device):
                    tried(image[0])
                passes, kept = [], held(tried)
                for _ in range(PASSES):
                    with global_seed(0, image.device):
                        before = other_generators()
                        passes.append(draw(blocks))
                        untouched = other_generators() == before
            leaf = blocks.clone().requires_grad_()
            with torch.enable_grad(), global_seed(0, image.device):
                # What recomputes a pass for its gradient, does so outside of the vectorized one.
                if (sums := draw(leaf).sum()).requires_grad:
                    torch.autograd.grad(sums, leaf, allow_unused=True)
            first = passes[0]
            fresh = not torch.equal(first, first[:1].expand_as(first))
            alike = all(torch.equal(first, other) for other in passes)
            _together[member] = untouched and fresh and alike and not changed(kept, tried)
        except Exception:  # It runs code that was not written for it, and may raise anything.
            _together[member] = False
    return _together[member]


def other_generators() -> tuple[object, object]:
    """The states of Python's global generator, and of NumPy's."""
    state = np.random.get_state(legacy=False)["state"]
    return random.getstate(), (state["key"].tobytes(), state["pos"])
