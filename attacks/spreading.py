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
        result = function(*args, **kwargs)
        if function in (F.max_pool2d, torch.max_pool2d) and isinstance(result, Tensor):
            return result + _mean(*args, **kwargs)
        return result


def _mean(
    images: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # noqa: ARG001
) -> Tensor | int:
    """Zero, with the gradient of the window's mean; 0 where windows have holes."""
    if dilation not in (1, (1, 1), [1, 1]):
        return 0
    mean = SPREAD * F.avg_pool2d(images, kernel_size, stride or kernel_size, padding, ceil_mode)
    return mean - mean.detach()
