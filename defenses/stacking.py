"""n submodels as one network: grouped layers in place of a loop over modules.

The channels of all submodels lie side by side, submodel by submodel. A convolution has groups for
each of them, batch norm sees more channels, a linear layer is a batched matrix product. Results are
those of the loop, up to the order of sums.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .description import description

# What last bits depend on beside torch and the machine: raise it with every change to them.
ARITHMETIC = "3"
# Layers that treat every channel by itself.
_CHANNELWISE = (
    *(nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.GELU, nn.Identity, nn.LeakyReLU),
    *(nn.MaxPool2d, nn.ReLU, nn.SiLU),
)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (F.relu, torch.relu)
# Code known to do what a trace of it says: no random numbers, no state of its own.
_KNOWN_CODE = ("torch.nn.modules.", "torchvision.models.")


def stackable(submodels: Sequence[nn.Module], *, trainable: bool = False) -> bool:
    """Whether submodels share one architecture, of layers out of torch.nn or torchvision.

    A module of anyone else's may draw random numbers or count its calls, and runs as it is. A stack
    that is `trainable` needs all parameters trained and none hooked.
    """
    if trainable and not all(
        parameter.requires_grad and not parameter._backward_hooks
        for submodel in submodels
        for parameter in submodel.parameters()
    ):
        return False
    return _traced(submodels) is not None


class Stack(nn.Module):
    """n submodels in one pass: images (n, N, C, H, W), block i for submodel i -> logits (n, N, K).

    The parameters and buffers of the submodels become views of the stack's: what changes one
    changes the other. They must be `stackable`.
    """

    def __init__(self, submodels: Sequence[nn.Module]) -> None:
        super().__init__()
        trace = _trace(submodels)
        layers = {}
        for target in trace.targets:
            parts = [submodel.get_submodule(target) for submodel in submodels]
            layers[target] = _side_by_side(parts)
        for target, layer in layers.items():
            _share(layer, [submodel.get_submodule(target) for submodel in submodels])
        self.network = fx.GraphModule(layers, trace.graph)
        self.train(submodels[0].training)

    def forward(self, images: Tensor) -> Tensor:
        """(n, N, C, H, W) -> (n, N, K)."""
        return _answer(self.network, _join(images), len(images))


class FrozenStack(nn.Module):
    """n submodels as an attack needs them: batch norm folded into convolutions, weights constant.

    A copy; `refresh` brings it up to date. The submodels must be `stackable`.

    Args:
        shared: all submodels see the same images (N, C, H, W); else block i of (n, N, C, H, W) is
            for submodel i. Logits are (n, N, K) in either case.
        dtype: of the computation; images and logits are of the images' own.
    """

    def __init__(
        self, submodels: Sequence[nn.Module], *, shared: bool, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        trace = _trace(submodels)
        trace.fold(submodels[0])
        self._trace, self._submodels = trace, tuple(submodels)
        self._shared, self._dtype = shared, dtype
        # What all submodels see needs no groups.
        self._dense = trace.first if shared else None
        layers = {
            target: _side_by_side(
                [submodel.get_submodule(target) for submodel in submodels],
                grouped=target != self._dense,
                first=target == trace.first,
                bias=target in trace.folded,
            )
            for target in trace.targets
        }
        self.network = fx.GraphModule(layers, trace.graph)
        self.network.eval().requires_grad_(False).to(dtype)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the submodels' present weights and statistics."""
        for target in self._trace.targets:
            norm = self._trace.folded.get(target)
            parts = [_fold(submodel, target, norm) for submodel in self._submodels]
            for name, whole in _tensors(self.network.get_submodule(target)).items():
                whole.copy_(torch.cat([torch.atleast_1d(part[name]) for part in parts]))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) if shared, else (n, N, C, H, W) -> (n, N, K)."""
        n = len(self._submodels)
        joined = images.to(self._dtype)
        if not self._shared:
            joined = _join(joined)
        elif not self._dense:
            joined = joined.repeat(1, n, 1, 1)
        return _answer(self.network, joined, n).to(images.dtype)


class InBlocks(nn.Module):
    """A network of blocks for attacks that know one batch: (n * B, C, H, W) -> (n * B, K).

    Args:
        network: (n, B, C, H, W), block i for submodel i -> (n, B, K).
    """

    def __init__(self, network: nn.Module, n: int) -> None:
        super().__init__()
        self.network = network
        self.n = n
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(n * B, C, H, W) -> (n * B, K)."""
        logits: Tensor = self.network(images.unflatten(0, (self.n, -1)))
        return logits.flatten(0, 1)


def _join(images: Tensor) -> Tensor:
    """(n, N, C, H, W) -> (N, n * C, H, W)."""
    return images.transpose(0, 1).flatten(1, 2)


def _answer(network: nn.Module, joined: Tensor, n: int) -> Tensor:
    """The logits (n, N, K) of a network that returns (N, n * K)."""
    logits: Tensor = network(_channels_last(joined))
    blocks: Tensor = logits.unflatten(1, (n, -1))
    return blocks.transpose(0, 1)


def _channels_last(images: Tensor) -> Tensor:
    """(N, C, H, W) with the strides of channels-last.

    `contiguous` leaves a single channel's strides as they are, since any are right; convolutions go
    by them, answer channels-first, and pooling takes several times as long.
    """
    last = images.permute(0, 2, 3, 1)
    return last.flatten().view(last.shape).permute(0, 3, 1, 2)


class _Conv(nn.Conv2d):
    """A convolution that knows that over a whole image it is a matrix product."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] == self.kernel_size and self.padding == (0, 0):
            outputs = _grouped_linear(images, self.weight.flatten(1), self.bias, self.groups)
            return outputs[..., None, None]
        return super().forward(images)


class _FirstConv(_Conv):
    """The convolution that sees the images, with constant weights."""

    def forward(self, images: Tensor) -> Tensor:
        slow = images.device.type == "cpu" and images.dtype != torch.bfloat16
        plain = self.stride == self.dilation == (1, 1) and not isinstance(self.padding, str)
        whole = images.shape[-2:] == self.kernel_size
        single = self.in_channels == self.groups
        if not (slow and plain and single) or whole or self.weight.requires_grad:
            return super().forward(images)
        outputs: Tensor = _Convolve.apply(images, self.weight, self.bias, self.padding)
        return outputs


# Numbers that stay in a processor's cache.
_FIT = 2**21


class _Convolve(torch.autograd.Function):
    """A convolution of a group for each channel: images (N, g, H, W), weight (g * out, 1, h, w).

    Its gradient in the images is a matrix product and a shift for each tap. torch's own takes
    several times as long on CPUs; not in bfloat16, and not with more channels in a group. The
    weight is constant: it gets no gradient.
    """

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
    ) -> Tensor:
        return F.conv2d(images, weight, bias, padding=padding, groups=images.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        images, weight, _, padding = inputs
        ctx.save_for_backward(weight)
        ctx.shape, ctx.padding = images.shape, padding

    @staticmethod
    def vmap(_: Any, dims: tuple[int | None, ...], images: Tensor, *others: Any) -> Any:
        """Many batches of images are one batch; see `torch.autograd.Function.vmap`."""
        assert dims[0] is not None  # Weights are constant: what is vectorized are the images.
        batches = images.movedim(dims[0], 0)
        outputs = _Convolve.apply(batches.flatten(0, 1), *others)
        return outputs.unflatten(0, batches.shape[:2]), 0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        (count, groups, height, width), (top, left) = ctx.shape, ctx.padding
        rows, columns = gradient.shape[-2:]
        weights = weight.flatten(1).unflatten(0, (groups, -1)).to(gradient).transpose(1, 2)
        padded = gradient.new_zeros(groups, count, height + 2 * top, width + 2 * left)
        few = max(1, _FIT // (weights.shape[1] * groups * rows * columns))
        for start in range(0, count, few):
            part, into = gradient[start : start + few], padded[:, start : start + few]
            outputs = part.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (groups, -1))
            taps = weights @ outputs.permute(1, 2, 0)
            taps = taps.view(groups, *weight.shape[-2:], len(part), rows, columns)
            for y in range(weight.shape[-2]):
                for x in range(weight.shape[-1]):
                    into[..., y : y + rows, x : x + columns] += taps[:, y, x]
        images = padded[..., top : top + height, left : left + width]
        return images.transpose(0, 1), None, None, None


class _Linear(nn.Linear):
    """n linear layers side by side: (N, n * in) -> (N, n * out)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, groups: int) -> None:
        super().__init__(inputs, outputs, bias)
        self.groups = groups

    def forward(self, features: Tensor) -> Tensor:
        return _grouped_linear(features, self.weight, self.bias, self.groups)


def _grouped_linear(features: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """(N, groups * in), (groups * out, in) -> (N, groups * out)."""
    blocks = features.flatten(1).unflatten(1, (groups, -1)).transpose(0, 1)
    weights = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    if bias is None:
        outputs = torch.bmm(blocks, weights)
    else:
        outputs = torch.baddbmm(bias.view(groups, 1, -1), blocks, weights)
    return outputs.transpose(0, 1).flatten(1)


def _side_by_side(
    layers: Sequence[nn.Module], *, grouped: bool = True, first: bool = False, bias: bool = False
) -> nn.Module:
    """One layer in place of n, its weights for the caller to fill; no random numbers are drawn.

    Args:
        grouped: each submodel has an input of its own; else they share one.
        first: a convolution of images, with constant weights.
        bias: give a convolution a bias even if the n have none.
    """
    n, layer = len(layers), layers[0]
    inputs = n if grouped else 1
    if not isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
        return copy.deepcopy(layer)
    built: nn.Module
    with torch.random.fork_rng(devices=[]):
        if isinstance(layer, nn.Conv2d):
            built = (_FirstConv if first else _Conv)(
                inputs * layer.in_channels,
                n * layer.out_channels,
                *(layer.kernel_size, layer.stride, layer.padding, layer.dilation),  # type: ignore[arg-type]
                groups=inputs * layer.groups,
                bias=bias or layer.bias is not None,
            )
        elif isinstance(layer, nn.BatchNorm2d):
            built = nn.BatchNorm2d(n * layer.num_features, layer.eps, layer.momentum)
            # Each submodel counts its own steps.
            built.num_batches_tracked = torch.zeros(n, dtype=torch.long)
        else:
            built = _Linear(
                layer.in_features, n * layer.out_features, bias=layer.bias is not None, groups=n
            )
    return built.to(next(layer.parameters()))


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's parameters and buffers."""
    return {**dict(layer.named_parameters()), **dict(layer.named_buffers())}


def _share(whole: nn.Module, parts: Sequence[nn.Module]) -> None:
    """Copy the parts' tensors into the whole, and make them views of it."""
    for name, tensor in _tensors(whole).items():
        tensors = [_tensors(part)[name] for part in parts]
        tensor.data = torch.cat([torch.atleast_1d(part.data) for part in tensors])
        for part, view in zip(tensors, tensor.data.chunk(len(parts)), strict=True):
            part.data = view.view(part.shape)


def _fold(submodel: nn.Module, target: str, norm: str | None) -> dict[str, Tensor]:
    """A layer's tensors, after folding the batch norm that follows it, if any."""
    layer = submodel.get_submodule(target)
    if norm is None:
        return _tensors(layer)
    conv, bn = _tensors(layer), _tensors(submodel.get_submodule(norm))
    eps = float(submodel.get_submodule(norm).eps)  # type: ignore[arg-type]
    weight, bias = fuse_conv_bn_weights(
        conv["weight"],
        conv.get("bias"),
        *(bn["running_mean"], bn["running_var"], eps, bn["weight"], bn["bias"]),
    )
    return {"weight": weight, "bias": bias}


@dataclass
class _Trace:
    """What a trace of a submodel says.

    Attributes:
        graph: its computation, in a form that holds for the stack as well.
        targets: names of the modules it calls.
        folded: convolutions, and the batch norm whose work they do as well.
        first: the convolution that alone sees the images, if there is one.
    """

    graph: fx.Graph
    targets: list[str] = field(default_factory=list)
    folded: dict[str, str] = field(default_factory=dict)
    first: str | None = None

    def fold(self, submodel: nn.Module) -> None:
        """Leave out each batch norm that follows a convolution and nothing else."""
        for norm in list(self.graph.nodes):
            conv = _input_of(norm, nn.BatchNorm2d, submodel)
            if conv is None or not _is_a(conv, nn.Conv2d, submodel) or len(conv.users) > 1:
                continue
            targets = str(conv.target), str(norm.target)
            if all(self.targets.count(target) == 1 for target in targets):
                self.folded[targets[0]] = targets[1]
                norm.replace_all_uses_with(conv)
                self.graph.erase_node(norm)
        self.targets = [t for t in self.targets if t not in self.folded.values()]


def _trace(submodels: Sequence[nn.Module]) -> _Trace:
    trace = _traced(submodels)
    if trace is None:
        raise ValueError("these submodels cannot be stacked: see `stackable`")
    return trace


def _traced(submodels: Sequence[nn.Module]) -> _Trace | None:
    """The trace that all submodels share; None: not stackable."""
    first = submodels[0]
    if not all(_known(module) for submodel in submodels for module in submodel.modules()):
        return None
    if len({description(submodel) for submodel in submodels}) > 1:
        return None
    try:
        graph = fx.Tracer().trace(first)
    except Exception:  # It runs code that was not written to be traced, and may raise anything.
        return None
    if not _supported(first, graph):
        return None
    called = [node for node in graph.nodes if node.op == "call_module"]
    trace = _Trace(graph, [str(node.target) for node in called])
    (images,) = (node for node in graph.nodes if node.op == "placeholder")
    users = [str(node.target) for node in images.users]
    if len(users) == 1 and trace.targets.count(users[0]) == 1:
        layer = first.get_submodule(users[0])
        # A convolution with groups would give each submodel other channels than its own.
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            trace.first = users[0]
    _pool_first(first, graph)
    return trace


def _known(module: nn.Module) -> bool:
    hooked = (
        *(module._forward_hooks, module._forward_pre_hooks, "forward" in vars(module)),
        *(module._backward_hooks, module._backward_pre_hooks),
    )
    return type(module).__module__.startswith(_KNOWN_CODE) and not any(hooked)


def _supported(submodel: nn.Module, graph: fx.Graph) -> bool:
    """Whether every operation means the same when channels are side by side."""
    dimensions: dict[fx.Node, int] = {}
    for node in graph.nodes:
        inputs = [
            dimensions.get(argument) if isinstance(argument, fx.Node) else None
            for argument in node.args
        ]
        if node.op == "output":
            return inputs == [2]
        result = None
        if node.op == "placeholder":
            result = 4
        elif node.op == "call_module" and len(inputs) == 1:
            result = _dimensions_after(submodel.get_submodule(str(node.target)), inputs[0])
        elif node.target in _RELUS or (node.target in _ADDITIONS and inputs[0] == inputs[1]):
            result = inputs[0]
        elif node.target is torch.flatten and node.args[1:] == (1,):
            result = 2
        if result is None:
            return False
        dimensions[node] = result
    return False


def _dimensions_after(layer: nn.Module, before: int | None) -> int | None:
    """How many dimensions a layer's output has; None: a layer that cannot be stacked."""
    if isinstance(layer, nn.Conv2d):
        return 4 if before == 4 and layer.padding_mode == "zeros" else None
    if isinstance(layer, nn.BatchNorm2d):
        plain = layer.affine and layer.track_running_stats and layer.momentum is not None
        return 4 if before == 4 and plain else None
    if isinstance(layer, nn.Linear):
        return 2 if before == 2 else None
    if isinstance(layer, nn.Flatten):
        return 2 if layer.start_dim == 1 and layer.end_dim == -1 else None
    return before if isinstance(layer, _CHANNELWISE) else None


def _pool_first(submodel: nn.Module, graph: fx.Graph) -> None:
    """Swap ReLU and the max-pooling after it: the same numbers, from fewer comparisons."""
    for pool in list(graph.nodes):
        relu = _input_of(pool, nn.MaxPool2d, submodel)
        if relu is not None and _is_a(relu, nn.ReLU, submodel) and len(relu.users) == 1:
            pool.replace_all_uses_with(relu)
            pool.args = relu.args
            relu.args = (pool,)
            pool.append(relu)


def _is_a(node: fx.Node, kind: type[nn.Module], submodel: nn.Module) -> bool:
    """Whether a node calls a module of this kind."""
    if node.op != "call_module":
        return False
    return isinstance(submodel.get_submodule(str(node.target)), kind)


def _input_of(node: fx.Node, kind: type[nn.Module], submodel: nn.Module) -> fx.Node | None:
    """The input of a node that calls a module of this kind; None: it does not."""
    if not _is_a(node, kind, submodel):
        return None
    (source,) = node.args
    return source if isinstance(source, fx.Node) else None
