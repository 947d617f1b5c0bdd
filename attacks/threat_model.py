"""What the attacker may do: a ball around the image, and the box [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["Linf", "L2"]
NORMS: tuple[Norm, ...] = ("Linf", "L2")
# Float32 pixels differ from exact arithmetic by about 1e-7; anything beyond this is a defect.
TOLERANCE = 1e-5


def parse_eps(text: str | float) -> float:
    """The radius written as `0.3` or `8/255`; ValueError: not a finite number at or above 0."""
    try:
        eps = float(Fraction(text)) if isinstance(text, str) else float(text)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        eps = math.nan
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps must be a finite number >= 0, such as 0.3 or 8/255, got {text!r}")
    return eps


@dataclass(frozen=True)
class ThreatModel:
    """All images x' in [0, 1] with ||x' - x|| <= eps.

    ValueError: unknown norm, or eps not a finite number >= 0, in units of pixel values in [0, 1].
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {self.norm!r}")
        object.__setattr__(self, "eps", parse_eps(self.eps))

    def distance(self, perturbed: Tensor, images: Tensor) -> Tensor:
        """The norm of x' - x for each image: (N, C, H, W) twice -> (N,)."""
        order = math.inf if self.norm == "Linf" else 2
        distance: Tensor = torch.linalg.vector_norm((perturbed - images).flatten(1), order, dim=1)
        return distance

    def project(self, perturbed: Tensor, images: Tensor) -> Tensor:
        """The point of the ball and the box nearest to x' (Linf), or a near one (L2).

        For L2 the difference is scaled back to the sphere and then clamped to [0, 1]; since x
        itself lies in the box, clamping only brings x' nearer to x.
        """
        if self.norm == "Linf":
            inside = perturbed.clamp(min=images - self.eps, max=images + self.eps)
        else:
            distance = self.distance(perturbed, images).clamp_min(1e-12)
            scale = (self.eps / distance).clamp_max(1).view(-1, 1, 1, 1)
            inside = images + (perturbed - images) * scale
        return inside.clamp(0, 1)

    def violation(self, perturbed: object, images: Tensor) -> str | None:
        """What is wrong with x', in words, or None when every image obeys the threat model."""
        if not isinstance(perturbed, Tensor):
            return f"returned {type(perturbed).__name__}, expected a tensor"
        if perturbed.shape != images.shape or perturbed.dtype != images.dtype:
            return (
                f"returned {tuple(perturbed.shape)} {perturbed.dtype} "
                f"for images {tuple(images.shape)} {images.dtype}"
            )
        if not perturbed.isfinite().all():
            return "returned pixels that are not finite"
        low, high = (perturbed.min().item(), perturbed.max().item()) if len(perturbed) else (0, 1)
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            return f"left the box [0, 1]: pixels in [{low:.6g}, {high:.6g}]"
        distance = self.distance(perturbed, images).max().item() if len(perturbed) else 0.0
        # An L2 distance sums rounding over all pixels, so its tolerance is relative.
        if distance > self.eps * (1 + TOLERANCE) + TOLERANCE:
            return f"left the ball: {self.norm} distance {distance:.6g} > eps {self.eps:.6g}"
        return None
