"""What is refused before anything is spent: it would give a wrong number instead of an error."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.freezing import frozen
from attacks.seeding import global_seed
from attacks.threat_model import TOLERANCE, ThreatModel
from defenses import Population

# Passes differ by more than this where a network draws random numbers, not where a device rounds.
ROUNDING = 1e-3
# Two draws may be alike by chance, as of a few sizes that an image is resized to.
PASSES = 6


def check_radius(threat_model: ThreatModel) -> None:
    """Refuse, with a ValueError, a radius that was meant in units of 0 to 255."""
    if threat_model.norm == "Linf" and threat_model.eps > 1:
        raise ValueError(
            f"eps {threat_model.eps:g} is larger than the range of pixels, which is 1: "
            f"write {threat_model.eps:g}/255 if it is in units of 0 to 255"
        )


def check_images(images: Tensor, labels: Tensor) -> None:
    """Refuse, with a ValueError, other images than floats in [0, 1], or labels than integers."""
    if images.ndim != 4 or len(images) == 0 or not images.is_floating_point():
        raise ValueError(
            f"images must be floats of shape (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images must be float32 or float64, got {images.dtype}: images.float()")
    if not (
        images.isfinite().all() and images.min() >= -TOLERANCE and images.max() <= 1 + TOLERANCE
    ):
        raise ValueError(
            f"images must lie in [0, 1], got [{images.min():.4g}, {images.max():.4g}]: "
            "put normalisation inside the module"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be int64 of shape ({len(images)},), got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )


@torch.no_grad()
def check_answers(
    population: Population,
    images: Tensor,
    labels: Tensor,
    *,
    finished: bool = True,
    expected: int | None = None,
) -> None:
    """Refuse a population that cannot be scored, by its answers to the first two images.

    Args:
        finished: whether it is trained; what is random may be so only then.
        expected: the number of classes; None: any.

    Raises:
        ValueError: logits that are not finite floats of shape (N, K), labels that are not below K,
            a member that changes the images it is given, or randomness that `draws` denies.
    """
    first = images[:2].clone()
    random = []
    with frozen(population):
        for number, member in enumerate(population.submodels):
            whose = f"submodel {number} ({type(member).__name__})"
            passes: list[Tensor] = []
            while len(passes) < PASSES and (len(passes) < 2 or _alike(passes)):
                with global_seed(len(passes), images.device):
                    logits = member(first)
                _check_logits(whose, logits, len(first))
                passes.append(logits)
                if not torch.equal(first, images[:2]):
                    raise ValueError(
                        f"{whose} changes the images it is given; let it work on a copy"
                    )
            classes = passes[0].shape[1]
            if labels.min() < 0 or labels.max() >= classes:
                raise ValueError(
                    f"labels must lie in [0, {classes - 1}], the classes of {whose}, "
                    f"got [{labels.min()}, {labels.max()}]"
                )
            if expected and classes != expected:
                raise ValueError(f"{whose} tells {classes} classes apart, expected {expected}")
            random += [] if _alike(passes) else [whose]
    if random and not population.random:
        raise ValueError(
            f"{random[0]} gives another answer in every pass: it is random in itself, and needs "
            "draws=16, say, over which expectations are taken"
        )
    if finished and population.random and not random:
        raise ValueError(
            f"draws={population.draws}, but no member is random: two passes give the same logits "
            "(in evaluation mode dropout is off); use draws=1"
        )


def _alike(passes: list[Tensor]) -> bool:
    """Whether the last pass gave what the first did."""
    spread = float(passes[0].std().nan_to_num()) or 1.0
    return torch.allclose(passes[0], passes[-1], rtol=ROUNDING, atol=ROUNDING * spread)


def _check_logits(whose: str, logits: object, count: int) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(f"{whose} must return float logits, got {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise ValueError(
            f"{whose} must return logits (N, K) with K > 1: "
            f"for {count} images it returned {tuple(logits.shape)}"
        )
    if not logits.isfinite().all():
        raise ValueError(f"{whose} returns logits that are not finite")
