"""Attacks that authors of defenses use, out of torchattacks; and two controls.

torchattacks is imported when an attack runs, so that nothing else depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attacks.registry import register_attack
from attacks.threat_model import ThreatModel


class _Model(nn.Module):
    """A network as torchattacks takes it: with a parameter, or it complains of the device.

    On a confident network float32 cross-entropy rounds its gradient to zero and a sign attack
    stands still; the last layer in `double` keeps the direction at no measurable cost.
    """

    def __init__(self, model: nn.Module, *, double: bool = True) -> None:
        super().__init__()
        self.model, self.double_precision = model, double
        self.none = nn.Parameter(torch.empty(0), requires_grad=False)

    def train(self, mode: bool = True) -> _Model:  # noqa: ARG002
        """Leave all modes as they are; torchattacks would put every part into evaluation mode."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        logits: Tensor = self.model(images).to(images.dtype)
        return logits.double() if self.double_precision and images.device.type != "mps" else logits


def _reachable_step(parameters: Mapping[str, Any], threat_model: ThreatModel) -> dict[str, Any]:
    """The step that is asked for if it lies between eps / steps and eps / 4; else the nearer end.

    Below eps / steps the edge of the ball is out of reach; above eps / 4 a sign attack jumps
    between the ball's corners.
    """
    eps, steps = threat_model.eps, parameters["steps"]
    step_size = min(max(parameters["step_size"], eps / steps), eps / 4)
    return {**parameters, "step_size": step_size if eps else parameters["step_size"]}


@register_attack("none", kind="control", norms=("Linf", "L2"))
def none(model: nn.Module, images: Tensor, labels: Tensor, *, threat_model: ThreatModel) -> Tensor:
    """Clean images."""
    return images


@register_attack("noise", kind="control", norms=("Linf", "L2"))
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
    """FGSM iterated with momentum, with steps of eps / steps (Dong et al., CVPR 2018, Alg. 1)."""
    import torchattacks

    step = threat_model.eps / steps
    attack = torchattacks.MIFGSM(_Model(model), threat_model.eps, step, steps, decay)
    perturbed = _run(attack, images, labels)
    # It divides by the gradient's mean and so returns NaN where a gradient was exactly zero, which
    # loses the iterate; such an image stays as it was and counts as unperturbed.
    return torch.where(perturbed.isfinite(), perturbed, images)


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


@register_attack("autoattack", kind="authors", norms=("Linf", "L2"), classes=4)
def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    queries: int,
) -> Tensor:
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square, in turn on what is left.

    The standard version (Croce and Hein, ICML 2020), in torchattacks' implementation, with `steps`
    for each of the first three and `queries` for Square (its own AutoAttack class fixes 10 steps).
    Where the four return an image as it was, because they failed or because the surrogate misread
    it from the start, the iterate of APGD-CE with the highest loss is returned: on another
    submodel it may succeed. In L2 images that are not square, or smaller than 16 pixels, go without
    Square, which fails on them.

    Raises:
        ValueError: fewer than four classes; the targeted loss compares four logits.
    """
    import torchattacks

    # Its FAB knows float32 only.
    own, images = images.dtype, images.float()
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"autoattack needs at least 4 classes, got {classes}")
    model = _Model(model, double=False)
    # Its Square in L2 takes images to be square and not small.
    odd = threat_model.norm == "L2" and (
        images.shape[-1] != images.shape[-2] or images.shape[-1] < 16
    )
    shared: dict[str, Any] = {"norm": threat_model.norm, "eps": threat_model.eps}
    # As the original: towards the nine likeliest of many classes, not each of them.
    targeted = {"n_classes": min(classes, 10), "steps": steps, **shared}
    attack = torchattacks.MultiAttack(
        [
            torchattacks.APGD(model, steps=steps, seed=_fresh_seed(), **shared),
            torchattacks.APGDT(model, seed=_fresh_seed(), **targeted),
            torchattacks.FAB(model, multi_targeted=True, seed=_fresh_seed(), **targeted),
            *(
                []
                if odd
                else [torchattacks.Square(model, n_queries=queries, seed=_fresh_seed(), **shared)]
            ),
        ]
    )
    perturbed = _run(attack, images, labels)
    unperturbed = (perturbed == images).flatten(1).all(dim=1)
    if unperturbed.any():
        apgd = torchattacks.APGD(model, steps=steps, **shared)
        with _default_type_of(images):
            _, best = apgd.perturb(images[unperturbed], labels[unperturbed], best_loss=True)
        perturbed[unperturbed] = best.detach()
    return perturbed.to(own)


def _run(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Call a torchattacks attack on the model's own device.

    With the channels first: FAB cannot view the gradients of colour images that have them last.
    """
    attack.set_device(images.device)
    with _default_type_of(images):
        perturbed: Tensor = attack(images.contiguous(), labels)
    return perturbed.detach()


@contextmanager
def _default_type_of(images: Tensor) -> Iterator[None]:
    """torchattacks makes tensors of the default type: here it is that of the images."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(images.dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def _fresh_seed() -> int:
    """A seed for the parts of AutoAttack that reseed torch's global generator themselves."""
    return int(torch.randint(2**31, ()))
