"""Random parts in place of a network's own, whatever the network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


def replaced(
    network: nn.Module, kinds: Kinds, make: Callable[..., nn.Module], at: int | None = None
) -> nn.Module:
    """The network with what `make` makes of its parts of some kinds, in place.

    Args:
        at: the number of the only part that is replaced, in their order; None: all.

    Raises:
        ValueError: it has no such part.
    """
    names = [name for name, part in network.named_modules() if name and isinstance(part, kinds)]
    if not names:
        wanted = " or ".join(
            kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else [kinds])
        )
        raise ValueError(f"{type(network).__name__} has no {wanted} to make random")
    for name in names if at is None else [names[at]]:
        network.set_submodule(name, make(network.get_submodule(name)))
    return network


def with_weight(layer: nn.Module, weight: Tensor, images: Tensor) -> Tensor:
    """What a layer answers if its weight is another."""
    answer: Tensor = functional_call(layer, {"weight": weight}, (images,))
    return answer
