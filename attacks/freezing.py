"""Networks as an attacker and a scorer see them: in evaluation mode, with weights held fixed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
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
        for place, found in within(value)
        if isinstance(found, (int, float, Tensor, Iterator, *_CONTAINERS))
    }


def within(
    value: object, place: str = "", above: frozenset[int] = frozenset()
) -> Iterator[tuple[str, object]]:
    """A value and all that it holds, by place; `above`: containers that hold it."""
    if id(value) in above:
        return
    yield place, value
    above |= {id(value)}
    if isinstance(value, (list, tuple, deque)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from within(part, f"{place}[{key!r}]", above)


def _version(value: object) -> object:
    if isinstance(value, Tensor):
        # Some of torch's own kernels, such as observers', write without counting it.
        return 0 if value.is_inference() else value._version, content(value)
    if isinstance(value, Iterator):
        # Where it stands cannot be seen: never as it was.
        return object()
    return len(value) if isinstance(value, _CONTAINERS) else 0


def content(tensor: Tensor) -> bytes:
    """A tensor's bytes, in order; none where its kind, such as a quantized one, has none."""
    with suppress(RuntimeError, TypeError):
        return tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
    return b""


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
def on_trial(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Whatever is done inside, `model` is as it was after; what is yielded makes it so inside.

    That is: weights and their gradients, buffers, and what parts hold beside them, but not where
    iterators and generators stand.
    """
    parts = [(vars(part), {**vars(part)}) for part in model.modules()]
    found = [one for _, then in parts for value in then.values() for _, one in within(value)]
    contents = [(one, copy(one)) for one in found if isinstance(one, _REFILLED)]
    tensors = [
        (one, one.detach().clone(), one.grad if one.is_leaf else None)
        for one in found
        if isinstance(one, Tensor) and not (one.is_inference() or is_lazy(one))
    ]

    def rewind() -> None:
        for attributes, then in parts:
            attributes.clear()
            attributes.update(then)
        for container, former in contents:
            container.clear()
            (container.extend if isinstance(container, (list, deque)) else container.update)(former)
        for tensor, value, gradient in tensors:
            if not torch.equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)
            if tensor.is_leaf:
                tensor.grad = gradient

    try:
        yield rewind
    finally:
        rewind()


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
    counted: list[tuple[Tensor, Tensor]] = []
    # Whatever is compiled has imported it; importing it here would take seconds.
    compiled = "torch._dynamo" in sys.modules
    try:
        for part in [*to_evaluate(model)]:
            part.training = False
        for weight in trainable:
            weight.requires_grad_(False)
        counted = [
            (buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_inference()
        ]
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight, wanted in trainable.items():
            weight.requires_grad_(wanted)
        with torch.no_grad():
            for buffer, value in counted:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def to_evaluate(model: nn.Module) -> Iterator[nn.Module]:
    """What `frozen` puts in evaluation mode: `model`, and parts that no part in that mode holds."""
    yield model
    for part in model.children():
        if getattr(part, "training", False):
            yield from to_evaluate(part)
