"""Networks as an attacker and a scorer see them: in evaluation mode, with weights held fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights inside; every module as it was after."""
    modes = {module: module.training for module in model.modules()}
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    model.eval()
    for weight in trainable:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight in trainable:
            weight.requires_grad_(True)
