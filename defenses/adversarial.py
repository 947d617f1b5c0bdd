"""Adversarial training: each batch is replaced by PGD examples (Madry et al., ICLR 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from ..attacks.published import pgd
from ..attacks.registry import ATTACKS
from ..attacks.threat_model import ThreatModel
from .training import Adversary


def pgd_adversary(*, eps: float, step_size: float, steps: int) -> Adversary:
    """An Linf PGD adversary for `train`; eps and step_size in units of pixel values in [0, 1]."""
    threat_model = ThreatModel("Linf", eps)
    numbers = ATTACKS["pgd"].parameters({"steps": steps, "step_size": step_size}, threat_model)

    def perturb(submodel: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return pgd(submodel, images, labels, threat_model=threat_model, **numbers)

    return perturb
