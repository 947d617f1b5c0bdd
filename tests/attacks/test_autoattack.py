"""AutoAttack by our own searches, beside torchattacks' parts of the standard version."""

import pytest
import torch
import torchattacks
from randomized_defense_bench.attacks import ATTACKS, ThreatModel
from randomized_defense_bench.attacks.freezing import frozen
from torch import nn


class Carved(nn.Module):
    """Class 0 but in holes of its own for each class, some wide, some narrow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(256, 64), nn.Tanh(), nn.Linear(64, 64), nn.ReLU()
        )
        self.last = nn.Linear(64, 6)

    def forward(self, images):
        return self.last(self.layers(images))


def standard(network, images, labels, norm, eps):
    """Whether the standard version's four parts leave each image correct, one after another."""
    shared = {"norm": norm, "eps": eps}
    targeted = {"n_classes": 6, "steps": 50, **shared}
    parts = [
        torchattacks.APGD(network, steps=50, **shared),
        torchattacks.APGDT(network, **targeted),
        torchattacks.FAB(network, multi_targeted=True, **targeted),
        torchattacks.Square(network, n_queries=200, **shared),
    ]
    torch.manual_seed(0)
    perturbed = torchattacks.MultiAttack(parts)(images, labels)
    return network(perturbed).argmax(1) == labels


@pytest.mark.parametrize(
    ("norm", "eps"), [("Linf", 0.006), ("Linf", 0.015), ("L2", 0.05), ("L2", 0.15)]
)
def test_it_leaves_no_more_than_torchattacks_and_hardly_another_image(norm, eps):
    network = Carved().eval()
    images = torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = network(images).argmax(1)
    with frozen(network):
        theirs = standard(network, images, labels, norm, eps)
        torch.manual_seed(0)
        perturbed = ATTACKS["autoattack"].function(
            network, images, labels, threat_model=ThreatModel(norm, eps), steps=50, queries=200
        )
    ours = network(perturbed).argmax(1) == labels
    assert 5 < theirs.sum() < 55
    assert ours.sum() <= theirs.sum()
    assert (ours & ~theirs).sum() == 0
