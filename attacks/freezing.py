"""Networks as an attacker and a scorer see them: in evaluation mode, with weights held fixed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights inside; every module as it was after.

    Parts of a network inside `model` that is in evaluation mode itself keep their modes: whoever
    turned some of them on again, such as dropout, meant it. What buffers count meanwhile is
    forgotten after. Code that `torch.compile` compiled runs as it was written: attacks
    differentiate a pass several times, on ever fewer images.
    """
    # Scripted code that was frozen has no mode.
    modes = {module: module.training for module in model.modules() if hasattr(module, "training")}
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    counted: list[tuple[Tensor, int, Tensor]] = []
    # Whatever is compiled has imported it; importing it here would take seconds.
    compiled = "torch._dynamo" in sys.modules
    try:
        _evaluation_mode(model)
        for weight in trainable:
            weight.requires_grad_(False)
        counted = [
            (buffer, buffer._version, buffer.clone())
            for buffer in model.buffers()
            if not buffer.is_inference()
        ]
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight in trainable:
            weight.requires_grad_(True)
        with torch.no_grad():
            for buffer, version, value in counted:
                if buffer._version != version:
                    buffer.copy_(value)


def _evaluation_mode(module: nn.Module) -> None:
    """Of a module, and of those of its parts that no part in evaluation mode holds."""
    module.training = False
    for part in module.children():
        if getattr(part, "training", False):
            _evaluation_mode(part)
