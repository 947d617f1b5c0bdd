"""Max pooling as a gradient attack should see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# The weight of the window's mean beside its largest value, in gradients alone.
SPREAD = 0.1


class SpreadPooling(TorchFunctionMode):
    """Inside, the gradient of max pooling reaches all of a window; answers stay as they are.

    The true gradient knows the largest value of each window alone. Networks that were trained on
    PGD examples hide there: no small step changes which value is the largest, and a gradient attack
    stands still where queries go on. This is the idea of a backward pass that differs from the
    forward pass (Athalye et al., ICML 2018).
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in (F.max_pool2d, torch.max_pool2d):
            return _spread(function, *args, **kwargs)
        return function(*args, **kwargs)


def _spread(
    function: Callable[..., Any],
    images: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Max pooling with another gradient; with its own where windows have holes."""
    numbers = kernel_size, stride or kernel_size, padding, dilation, ceil_mode
    if return_indices or dilation not in (1, (1, 1), [1, 1]):
        return function(images, *numbers, return_indices)
    return _SpreadPool.apply(images, *numbers)[0]


class _SpreadPool(torch.autograd.Function):
    """Max pooling whose gradient has that of the window's mean beside its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, *numbers: Any) -> Any:
        """The maxima of (N, C, H, W), and where they are."""
        return torch.ops.aten.max_pool2d_with_indices(images, *numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.numbers = inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: object) -> Any:
        images, places = ctx.saved_tensors
        *window, dilation, ceil_mode = ctx.numbers
        own = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, images, *window, dilation, ceil_mode, places
        )
        mean = torch.ops.aten.avg_pool2d_backward(
            SPREAD * gradient, images, *window, ceil_mode, True, None
        )
        return own + mean, *[None] * len(ctx.numbers)
