"""Attacks that authors of defenses use, most out of torchattacks; and two controls.

torchattacks is imported when an attack runs, so that nothing else depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .objectives import settled
from .registry import register_attack
from .threat_model import ThreatModel


class _Model(nn.Module):
    """A network as torchattacks takes it: with a parameter, or it complains of the device.

    On a confident network float32 cross-entropy rounds its gradient to zero and a sign attack
    stands still; the last layer in `double` keeps the direction at no measurable cost.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.none = nn.Parameter(torch.empty(0), requires_grad=False)

    def train(self, mode: bool = True) -> _Model:  # noqa: ARG002
        """Leave all modes as they are; torchattacks would put every part into evaluation mode."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        logits = settled(self.model(images).to(images.dtype))
        return logits if images.device.type == "mps" else logits.double()


def _reachable_step(parameters: Mapping[str, Any], threat_model: ThreatModel) -> dict[str, Any]:
    """The step that is asked for if it lies between eps / steps and eps / 4; else the nearer end.

    Below eps / steps the edge of the ball is out of reach; above eps / 4 a sign attack jumps
    between the ball's corners.
    """
    eps, steps = threat_model.eps, parameters["steps"]
    step_size = min(max(parameters["step_size"], eps / steps), eps / 4)
    return {**parameters, "step_size": step_size if eps else parameters["step_size"]}


@register_attack("none", kind="control", norms=("Linf", "L2"), version=1)
def none(model: nn.Module, images: Tensor, labels: Tensor, *, threat_model: ThreatModel) -> Tensor:
    """Clean images."""
    return images


@register_attack("noise", kind="control", norms=("Linf", "L2"), version=1)
def noise(model: nn.Module, images: Tensor, labels: Tensor, *, threat_model: ThreatModel) -> Tensor:
    """A random corner of the ball: what every attack must beat."""
    signs = torch.rand_like(images).sub(0.5).sign()
    if threat_model.norm == "L2":
        signs = signs / signs[0].numel() ** 0.5
    return threat_model.project(images + threat_model.eps * signs, images)


@register_attack("fgsm", kind="authors", gradient_only=True, version=2, swept=True)
def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, threat_model: ThreatModel) -> Tensor:
    """x + eps * sign(gradient of cross-entropy); paper Eq. 1."""
    import torchattacks

    return _run(torchattacks.FGSM(_Model(model), eps=threat_model.eps), images, labels)


@register_attack(
    "pgd",
    kind="authors",
    gradient_only=True,
    effective=_reachable_step,
    version=2,
    swept=True,
    protocols=("transfer",),
)
def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    step_size: float,
) -> Tensor:
    """Projected steps along the gradient's sign from a random start; paper Eq. 2."""
    import torchattacks

    attack = torchattacks.PGD(_Model(model), threat_model.eps, step_size, steps)
    return _run(attack, images, labels)


@register_attack("mifgsm", kind="authors", gradient_only=True, version=2)
def mifgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    decay: float,
) -> Tensor:
    """FGSM iterated with momentum, with steps of eps / steps (Dong et al., CVPR 2018, Alg. 1).

    Not torchattacks': it divides by the gradient's mean, and an image where that was once zero is
    NaN from there on. Here such a step goes on with the momentum that there is.
    """
    network, eps = _Model(model), threat_model.eps
    perturbed, velocity = images, torch.zeros_like(images)
    for _ in range(steps):
        leaf = perturbed.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf), labels), leaf)
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        velocity = decay * velocity + torch.where(size > 0, gradient / size, 0.0)
        perturbed = threat_model.project(perturbed + eps / steps * velocity.sign(), images)
    return perturbed


@register_attack(
    "pgd-eot",
    kind="authors",
    surrogate="population",
    gradient_only=True,
    effective=_reachable_step,
    version=2,
)
def pgd_eot(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    step_size: float,
    draws: int,
) -> Tensor:
    """PGD on the gradient averaged over `draws` fresh draws of a submodel at every step.

    Expectation over transformation (Athalye et al., ICML 2018), the transformation being the draw.
    """
    import torchattacks

    attack = torchattacks.EOTPGD(_Model(model), threat_model.eps, step_size, steps, draws)
    return _run(attack, images, labels)


def _run(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Call a torchattacks attack on the model's own device, and in the images' own type."""
    attack.set_device(images.device)
    default = torch.get_default_dtype()
    torch.set_default_dtype(images.dtype)
    try:
        perturbed: Tensor = attack(images, labels)
    finally:
        torch.set_default_dtype(default)
    return perturbed.detach()
