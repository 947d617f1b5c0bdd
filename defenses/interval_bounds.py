"""Interval bounds: between which values a network's logits lie for all images of a box.

Gowal et al., "Scalable Verified Training for Provably Robust Image Classification", ICCV 2019.
"""

from __future__ import annotations

import operator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..attacks.registry import register_certificate
from ..attacks.threat_model import ThreatModel

# Lower and upper ends, of one shape.
Interval = tuple[Tensor, Tensor]

# Of float32, in which networks answer: they round more than their bounds in float64 do.
ROUNDING = 2.0**-24
# These keep the order of numbers; of batch norm a negative weight turns it round.
MONOTONE = (nn.ReLU, nn.Identity, nn.Flatten, nn.MaxPool2d, nn.AdaptiveMaxPool2d)
AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
FUNCTIONS = {torch.flatten, torch.relu, F.relu}
SUMS = {operator.add, operator.iadd, torch.add}


def interval_bounds(
    network: nn.Module, lower: Tensor, upper: Tensor, *, rounding: float = 0.0
) -> Interval:
    """Between which the logits (N, K) lie for all images of the boxes, (N, C, H, W) each.

    Batch norm counts with its running statistics and dropout as off, whatever the mode.

    Args:
        rounding: the relative error of an operation, by which each layer's bounds are widened.

    Raises:
        ValueError: a part other than convolutions, linear layers, batch norms, ReLUs, pools,
            dropout, flattening and sums.
    """
    # A network that is one layer must be called, too.
    traced = fx.symbolic_trace(nn.Sequential(network))
    logits: Interval = _Bounds(traced, rounding).run((lower, upper))
    return logits


def worst_logits(bounds: Interval, labels: Tensor) -> Tensor:
    """The lower bound of the label's logit and the upper bounds of the others, (N, K)."""
    lower, upper = bounds
    return torch.where(F.one_hot(labels, lower.shape[-1]).bool(), lower, upper)


@register_certificate("interval-bounds", norms=("Linf",), version=1)
@torch.no_grad()
def certify(
    member: nn.Module, images: Tensor, labels: Tensor, *, threat_model: ThreatModel
) -> Tensor:
    """1 where a network classifies all images of the ball correctly, else 0, (N,).

    In float64; each layer's bounds are widened by what float32 may round there, in whatever order
    it sums (Higham, 2002, Section 3.1). Winograd's convolutions may round more. Of a network that
    was not trained for them the bounds prove nothing.
    """
    exact, eps = images.double(), threat_model.eps
    box = (exact - eps).clamp_min(0), (exact + eps).clamp_max(1)
    bounds = interval_bounds(deepcopy(member).double(), *box, rounding=ROUNDING)
    logits, label = worst_logits(bounds, labels), labels.unsqueeze(1)
    others = logits.scatter(1, label, -torch.inf).amax(1)
    return (logits.gather(1, label)[:, 0] > others).double()


class _Bounds(fx.Interpreter):
    """Runs a traced network on intervals."""

    def __init__(self, network: fx.GraphModule, rounding: float) -> None:
        super().__init__(network)
        self._rounding = rounding
        # Messages of one line.
        self.extra_traceback = False

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Interval:  # noqa: ARG002
        """What a layer makes of an interval."""
        layer: Any = self.fetch_attr(target)
        lower, upper = args[0]
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            return lower, upper
        if isinstance(layer, MONOTONE):
            return layer(lower), layer(upper)
        if isinstance(layer, AVERAGES):
            size = lower.shape[-1] * lower.shape[-2]
            return self._widened(layer(lower), layer(upper), size, layer(_reach(lower, upper)))
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            return self._normalized(layer, lower, upper)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            return self._affine(layer, lower, upper)
        raise ValueError(f"interval bounds do not know {type(layer).__name__}")

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Interval:
        """What a function makes of one interval, or of two."""
        (lower, upper), *rest = args
        if target in FUNCTIONS:
            return target(lower, *rest, **kwargs), target(upper, *rest, **kwargs)
        if target in SUMS and isinstance(rest[0], tuple):
            ends = lower + rest[0][0], upper + rest[0][1]
            return self._widened(*ends, 1, _reach(*ends))
        raise ValueError(f"interval bounds do not know {target.__name__}")

    def _affine(self, layer: nn.Conv2d | nn.Linear, lower: Tensor, upper: Tensor) -> Interval:
        middle, radius = (lower + upper) / 2, (upper - lower) / 2
        absolute = {name: weight.abs() for name, weight in layer.named_parameters()}
        unmoved = {n: w if n == "weight" else torch.zeros_like(w) for n, w in absolute.items()}
        answer, spread = layer(middle), functional_call(layer, unmoved, radius)
        reach = functional_call(layer, absolute, _reach(lower, upper)) if self._rounding else spread
        return self._widened(answer - spread, answer + spread, layer.weight[0].numel() + 2, reach)

    def _normalized(self, layer: Any, lower: Tensor, upper: Tensor) -> Interval:
        shape = (-1, *[1] * (lower.ndim - 2))
        scale = (layer.running_var + layer.eps).rsqrt()
        scale = (scale if layer.weight is None else layer.weight * scale).view(shape)
        shift = (layer.bias if layer.bias is not None else 0 * layer.running_mean).view(shape)
        mean = layer.running_mean.view(shape)
        ends = [scale * (end - mean) + shift for end in (lower, upper)]
        reach = scale.abs() * (_reach(lower, upper) + mean.abs()) + shift.abs()
        return self._widened(torch.minimum(*ends), torch.maximum(*ends), 8, reach)

    def _widened(self, lower: Tensor, upper: Tensor, operations: int, reach: Tensor) -> Interval:
        """By the rounding errors of sums of so many terms, whose absolute values sum to `reach`."""
        slack = operations * self._rounding / (1 - operations * self._rounding) * reach
        return lower - slack, upper + slack


def _reach(lower: Tensor, upper: Tensor) -> Tensor:
    """The largest absolute value in an interval."""
    return torch.maximum(lower.abs(), upper.abs())
