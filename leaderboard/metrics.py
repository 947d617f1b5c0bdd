"""Every score, from `correct[n, N]`: whether submodel i classifies perturbed image j correctly.

The unit of replication is the image. Submodels answer the same image and are correlated, so
intervals come from the spread of s_j over images, never from n * N independent trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Correct = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Score:
    """A mean over images with its confidence interval; all three in [0, 1]."""

    value: float
    low: float
    high: float


def expected_correctness(correct: Correct) -> Floats:
    """s_j = (1/n) sum_i correct[i, j]: (n, N) -> (N,).

    The probability that the deployed model, which draws uniformly, answers image j correctly.
    """
    return np.asarray(correct.mean(axis=0, dtype=np.float64))


def submodel_accuracies(correct: Correct) -> Floats:
    """(1/N) sum_j correct[i, j] for each submodel: (n, N) -> (n,)."""
    return np.asarray(correct.mean(axis=1, dtype=np.float64))


def mra(correct: Correct) -> float:
    """The model robustness average, paper Eq. 6: the mean of all submodels' accuracies."""
    return float(correct.mean(dtype=np.float64))


def score(per_seed: Sequence[Correct]) -> Score:
    """MRA over one or more training seeds measured on the same images, with its interval.

    The squared standard error is that of the seed-averaged s_j over images plus, with k > 1
    seeds, the variance between the seeds' MRAs over k. Where every s_j is 0, or every one is 1,
    the spread says nothing and the exact binomial bound takes its place (about 3 / N).

    Args:
        per_seed: one (n, N) array a seed; n may differ, N may not.

    Raises:
        ValueError: no seed, no image, or a different number of images.
    """
    if not per_seed or len({correct.shape[1] for correct in per_seed}) != 1:
        raise ValueError("a score needs at least one seed, all on the same images")
    answers = np.mean([expected_correctness(correct) for correct in per_seed], axis=0)
    images = len(answers)
    if images == 0:
        raise ValueError("a score needs at least one image")
    value = float(answers.mean())
    if value in (0.0, 1.0):
        bound = float(1 - (1 - CONFIDENCE) ** (1 / images))
        return Score(value, value - bound * value, value + bound * (1 - value))
    variance = float(answers.var(ddof=1)) / images if images > 1 else 0.25
    if len(per_seed) > 1:
        variance += float(np.var([mra(c) for c in per_seed], ddof=1)) / len(per_seed)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * variance**0.5
    return Score(value, max(0.0, value - half), min(1.0, value + half))
