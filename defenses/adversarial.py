"""Adversarial training: each batch is replaced by PGD examples (Madry et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attacks.craft import HeldDraws
from ..attacks.published import pgd
from ..attacks.registry import ATTACKS
from ..attacks.threat_model import ThreatModel
from .training import Adversary


def pgd_adversary(*, eps: float, step_size: float, steps: int, held: bool = False) -> Adversary:
    """An Linf PGD adversary for `train`; eps and step_size in units of pixel values in [0, 1].

    Args:
        held: of a random network it attacks one draw, held fixed, rather than a fresh one at every
            step: the network then learns under another draw than was attacked.
    """
    threat_model = ThreatModel("Linf", eps)
    numbers = ATTACKS["pgd"].parameters({"steps": steps, "step_size": step_size}, threat_model)

    def perturb(submodel: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if held:
            submodel = HeldDraws(submodel, int(torch.randint(2**62, ())))
        return pgd(submodel, images, labels, threat_model=threat_model, **numbers)

    return perturb
