"""The certificate of Gaussian noise in L2, from many draws (Cohen et al., ICML 2019)."""

import torch
from scipy.special import betaincinv, ndtr, ndtri
from torch import Tensor, nn

from ..attacks.objectives import correct_answers
from ..attacks.registry import register_certificate
from ..attacks.threat_model import ThreatModel
from .noise import Noise


@register_certificate("clopper-pearson", norms=("L2",), version=1)
@torch.no_grad()
def certify(
    member: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    samples: int,
    alpha: float = 0.001,
) -> Tensor:
    """The least probability that a draw classifies correctly anywhere in the ball, (N,).

    If a draw is correct with probability p, it is within eps with Phi(Phi^-1(p) - eps / sigma) at
    least (Theorem 1). p is bounded from below by Clopper and Pearson's one-sided interval, so each
    image's bound fails with probability alpha. A vote of all draws is certified where the bound
    exceeds one half. It holds for Gaussian noise in exact arithmetic: in floating point a
    difference in the last bits of noise and image may tell more (arXiv:2207.07209).

    Args:
        samples: draws that p is estimated by.

    Raises:
        ValueError: a member that adds no Gaussian noise.
    """
    if not isinstance(member, Noise):
        raise ValueError(f"{type(member).__name__} is not a network with Gaussian noise: use Noise")
    answers = (correct_answers(member(images)[None], labels)[0] for _ in range(samples))
    right = torch.stack([*answers]).sum(0).double().cpu().numpy()
    p = betaincinv(right.clip(1), samples - right.clip(1) + 1, alpha) * (right > 0)
    sigma = member.get_buffer("sigma").item()
    return torch.from_numpy(ndtr(ndtri(p) - threat_model.eps / sigma))
