"""Networks as an attacker and a scorer see them: in evaluation mode, with weights held fixed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

# What a version is compared with: by part, name and place in it.
Held = dict[tuple[nn.Module, str, str], tuple[object, object]]
_REFILLED = (list, deque, dict, set)
_CONTAINERS = (*_REFILLED, tuple, frozenset, Mapping)
# What every module has beside its mode, such as its weights.
_COMMON = vars(nn.Module()).keys() - {"training"}


def held(model: nn.Module) -> Held:
    """The numbers, tensors and containers of them that parts hold beside weights, with versions."""
    return {
        (part, name, place): (found, _version(found))
        for part in model.modules()
        for name, value in [*vars(part).items(), *part.named_buffers(recurse=False)]
        if name not in _COMMON
        for place, found in _within(value)
    }


def _within(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """A value that may be state, and all that it holds, by place."""
    if isinstance(value, (int, float, Tensor, Iterator, *_CONTAINERS)):
        yield place, value
    if isinstance(value, (list, tuple, deque)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _within(part, f"{place}[{key!r}]")


def _version(value: object) -> object:
    if isinstance(value, Tensor):
        return 0 if value.is_inference() else value._version
    if isinstance(value, Iterator):
        # Where it stands cannot be seen: never as it was.
        return object()
    return len(value) if isinstance(value, _CONTAINERS) else 0


def changed(before: Held, model: nn.Module) -> list[tuple[nn.Module, str]]:
    """What is another now than it was, such as a membrane, by part and name."""
    none: tuple[object, object] = (None, 0)
    names = {
        key[:2]: None
        for key, (value, version) in held(model).items()
        for old, then in [before.get(key, none)]
        if value is not old or version != then
    }
    return [*names]


@contextmanager
def on_trial(model: nn.Module) -> Iterator[None]:
    """Weights and their gradients as they were after, and after an error all that is `held`."""
    weights = [(w, w.detach().clone(), w.grad) for w in model.parameters() if not is_lazy(w)]
    before = held(model)
    contents = [(one, copy(one)) for one, _ in before.values() if isinstance(one, _REFILLED)]
    try:
        yield
    except BaseException:
        for (part, name, place), (value, _) in before.items():
            if not place and name in vars(part):
                vars(part)[name] = value
        for container, content in contents:
            container.clear()
            (container.extend if isinstance(container, (list, deque)) else container.update)(
                content
            )
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
