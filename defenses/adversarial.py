"""Adversarial training: each batch is replaced by adversarial examples.

With PGD (Madry et al., ICLR 2018), or in one step by N-FGSM (de Jorge et al., NeurIPS 2022).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attacks.craft import HeldDraws
from ..attacks.freezing import frozen
from ..attacks.published import pgd
from ..attacks.registry import ATTACKS
from ..attacks.seeding import derive_seed, global_seed
from ..attacks.threat_model import ThreatModel
from .population import Population
from .surrogate import Surrogate
from .training import Adversary, BeforeStep, Loss, Task, train

logger = logging.getLogger(__name__)

# Training images on which robustness is watched, the first.
WATCHED = 250


class CollapseError(RuntimeError):
    """A training that learned to withstand its own adversary alone (catastrophic overfitting)."""


def train_adversarially(
    population: Population,
    task: Task,
    *,
    eps: float,
    step_size: float,
    steps: int,
    before_step: BeforeStep | None = None,
    loss: Loss | None = None,
    wrap: Callable[[Adversary], Adversary] | None = None,
) -> None:
    """Train on adversarial examples; eps and step_size in units of pixel values in [0, 1].

    Args:
        steps: of PGD; 1: N-FGSM, since PGD in one step collapses.
        loss: see `train`.
        wrap: makes the adversary to train on of the one that is watched.

    Raises:
        CollapseError: after an epoch in which PGD leaves a network less than half of what N-FGSM
            does. An adversary of several steps may be weak, but does not collapse: none is watched.
    """
    adversary = make_adversary(eps=eps, step_size=step_size, steps=steps)
    strong = _pgd(eps, eps / 4, 10)
    images, labels = task.images[:WATCHED], task.labels[:WATCHED]

    def watch(population: Population) -> None:
        surrogate = Surrogate(population, task.plan, low_precision=True)
        for i, network in enumerate(surrogate.submodels):
            left = []
            for attack in (adversary, strong):
                seed = derive_seed(task.seed, "watch", task.first + i)
                with frozen(network), global_seed(seed, images.device):
                    answers = network(attack(network, images, labels)).argmax(1)
                left.append((answers == labels).float().mean().item())
            logger.info("network %d: %.1f%% of training images left by PGD", i, 100 * left[1])
            # A margin for chance, where little is learned yet.
            if left[1] < left[0] / 2 - len(images) ** -0.5:
                raise CollapseError(
                    f"network {i} collapsed: of {len(images)} training images its adversary leaves "
                    f"{left[0]:.1%}, and PGD {left[1]:.1%}; train with several steps of PGD, or at "
                    "a lower learning rate"
                )

    train(
        population,
        task,
        task.recipe,
        adversary=wrap(adversary) if wrap else adversary,
        before_step=before_step,
        after_epoch=watch if steps == 1 else None,
        loss=loss,
    )


def make_adversary(*, eps: float, step_size: float, steps: int) -> Adversary:
    """PGD, or in one step N-FGSM, for `train`."""
    return _n_fgsm(eps, step_size) if steps == 1 else _pgd(eps, step_size, steps)


def held(adversary: Adversary) -> Adversary:
    """The same on one draw of a random network, held fixed; another draw learns."""

    def perturb(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return adversary(HeldDraws(network, int(torch.randint(2**62, ()))), images, labels)

    return perturb


def _pgd(eps: float, step_size: float, steps: int) -> Adversary:
    threat_model = ThreatModel("Linf", eps)
    numbers = ATTACKS["pgd"].parameters({"steps": steps, "step_size": step_size}, threat_model)

    def perturb(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return pgd(network, images, labels, threat_model=threat_model, **numbers)

    return perturb


def _n_fgsm(eps: float, step_size: float) -> Adversary:
    """One step from noise of twice the radius, clipped to nothing."""

    def perturb(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        noisy = (images + 2 * eps * (2 * torch.rand_like(images) - 1)).requires_grad_()
        loss = F.cross_entropy(network(noisy).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, noisy)
        return (noisy + step_size * gradient.sign()).detach()

    return perturb
