"""Tiny networks for images 1 x 1 x 2."""

import torch
from torch import nn


def layer(*rows):
    """Logits W x of flattened images."""
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    module.weight.data = torch.tensor(rows)
    return nn.Sequential(nn.Flatten(), module)


def linear(*weights):
    """Logits (w . x, 0, 0, 0): class 0 while w . x > 0."""
    return layer([*weights], *[[0.0] * len(weights)] * 3)


class Chance(nn.Module):
    """Right (class 0) with the probability that the first pixel says.

    Args:
        shared: one draw serves all images of a pass.
    """

    def __init__(self, *, shared=False):
        super().__init__()
        self.shared = shared

    def forward(self, images):
        first = images.flatten(1)[:, 0]
        drawn = torch.rand(1 if self.shared else len(images), device=images.device)
        right = (drawn < first).to(images) + 0 * first
        other = 0.4 + 0.1 * torch.rand(len(images), device=images.device)
        return torch.stack([right, other, 0 * right, 0 * right], dim=1)
