"""The paper's two networks. Inputs are images in [0, 1]; there is no normalisation."""

from __future__ import annotations

from torch import nn


def lenet5(channels: int = 1, classes: int = 10) -> nn.Module:
    """LeNet5 with batch norm, as released: (N, channels, 32, 32) -> (N, classes)."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 120, 5), nn.BatchNorm2d(120), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)),
    )


def cifar_resnet18(channels: int = 3, classes: int = 10) -> nn.Module:
    """ResNet18 with a 3x3 stem and no stem pooling: (N, channels, 32, 32) -> (N, classes)."""
    # Here, so that what needs no ResNet works where torchvision does not.
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model
