"""The paper's two networks, and a small one. Inputs are images in [0, 1], not normalised."""

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


def cifar_convnet(channels: int = 3, classes: int = 10) -> nn.Module:
    """Six 3x3 convolutions on a stem of stride 2: (N, channels, 32, 32) -> (N, classes).

    1.2 million weights. Like Keller Jordan's airbench, but with the first layer on a quarter of the
    places, and with widths that CPUs are fast at.
    """

    def layer(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *(*layer(channels, 32, size=4, stride=2), *layer(32, 64), *layer(64, 64)),
        *(*layer(64, 128), nn.MaxPool2d(2), *layer(128, 128)),
        *(*layer(128, 256), nn.MaxPool2d(2), *layer(256, 256)),
        *(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, classes)),
    )


def cifar_resnet18(channels: int = 3, classes: int = 10) -> nn.Module:
    """ResNet18 with a 3x3 stem and no stem pooling: (N, channels, 32, 32) -> (N, classes)."""
    # Here, so that what needs no ResNet works where torchvision does not.
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model
