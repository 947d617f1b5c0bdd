"""Networks as an attacker and a scorer see them: in evaluation mode, with weights held fixed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Held = dict[tuple[nn.Module, str], tuple[object, int]]


def held(model: nn.Module) -> Held:
    """The numbers and tensors that parts hold beside weights, by part and name, with versions."""
    return {
        (part, name): (value, _version(value))
        for part in model.modules()
        for name, value in [*vars(part).items(), *part.named_buffers(recurse=False)]
        if isinstance(value, (int, float, Tensor))
    }


def _version(value: float | Tensor) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def changed(before: Held, model: nn.Module) -> list[tuple[nn.Module, str]]:
    """What is another now than it was, such as a membrane, by part and name."""
    none: tuple[object, int] = (None, 0)
    return [
        key
        for key, (value, version) in held(model).items()
        for old, then in [before.get(key, none)]
        if value is not old or version != then
    ]


@contextmanager
def on_trial(model: nn.Module) -> Iterator[None]:
    """Weights and their gradients as they were after, and after an error all that is `held`."""
    weights = [(w, w.detach().clone(), w.grad) for w in model.parameters() if not is_lazy(w)]
    before = held(model)
    try:
        yield
    except BaseException:
        for (part, name), (value, _) in before.items():
            if name in vars(part):
                vars(part)[name] = value
        raise
    finally:
        for weight, value, gradient in weights:
            if not torch.equal(weight, value):
                with torch.no_grad():
                    weight.copy_(value)
            weight.grad = gradient


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
    trainable = {weight: weight.requires_grad for weight in model.parameters()}
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
        for weight, wanted in trainable.items():
            weight.requires_grad_(wanted)
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
