"""Random resizing and padding (Xie et al., ICLR 2018): sizes scaled, one draw serves a batch."""

import torch
from torch import Tensor, nn

from .population import Population
from .registry import register_defense
from .training import Task, load_inside


class ResizePad(nn.Module):
    """The network on the image, shrunk to a random size, at a random place."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, K)."""
        side, device = images.shape[-1], images.device
        size = torch.randint(round(side * 299 / 331), side + 1, (), device=device)
        corner = (torch.rand(2, device=device) * (side - size + 1)).floor().long()
        # Which row and column each pixel shows, the nearest; around the image none.
        pixels = torch.arange(side, device=device)
        source = (pixels - corner.unsqueeze(1)) * side // size
        shown = (source.unsqueeze(-1) == pixels).to(images)
        return self.network(shown[0] @ images @ shown[1].T)  # type: ignore[no-any-return]


@register_defense(
    "resize-pad",
    build=lambda data: ResizePad(data.standard_network()),
    members=1,
    draws=32,
    random="size and place of the image",
    reference="arXiv:1711.01991",
    starts_from=("single",),
    version=1,
)
def resize_pad(population: Population, task: Task) -> None:
    """Take over the plainly trained network; nothing is trained."""
    load_inside(population, task.load("single"))
