"""With which probabilities a finite population is best drawn, under the attacks that were run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import eye_array, hstack, vstack

from .. import metrics
from ..metrics import Answers, Floats
from .rows import Row, tried_by_seed

# Laws whose scores differ by less than this share of an image are equal.
EQUAL = 1e-3


def best_law(tried: Sequence[Answers], images: Any = slice(None)) -> Floats:
    """The law p (n,) with the highest worst-case accuracy on some images, by a linear programme.

    It maximizes the mean of t_j with t_j <= sum_i p_i correct[i, j] under each attack; of equal
    laws it is the one whose largest probability is least.
    """
    correct = np.stack([answers.correct for answers in tried])[..., images]
    attacks, n, _ = correct.shape
    # Images with the same answers under all attacks share a bound.
    kinds, counts = np.unique(correct.reshape(attacks * n, -1), axis=1, return_counts=True)
    answers = kinds.reshape(attacks, n, -1).swapaxes(1, 2).reshape(-1, n).astype(np.float64)
    # Unknowns: p, t of each kind, and the largest of p.
    worst = [-answers, vstack([eye_array(len(counts))] * attacks), np.zeros((len(answers), 1))]
    largest = [eye_array(n), np.zeros((n, len(counts))), -np.ones((n, 1))]
    bounds, none = vstack([hstack(worst), hstack(largest)]), np.zeros(n)
    total = np.r_[np.ones(n), 0 * counts, 0][None]
    gain = np.r_[none, counts, -EQUAL]
    found = linprog(-gain, bounds, np.zeros(bounds.shape[0]), total, [1.0])
    law = np.maximum(found.x[:n], 0)
    return np.asarray(law / law.sum())


def under_best_law(tried: Sequence[Answers]) -> Answers:
    """The worst case under the law that is best on the other half of the images, (1, N)."""
    half = np.arange(tried[0].images) // tried[0].block % 2
    s = np.empty(len(half))
    for here in (0, 1):
        law = best_law(tried, half != here).tolist()
        under = metrics.worst_case([replace(answers, probabilities=law) for answers in tried])
        s[half == here] = under.s[half == here]
    return Answers(s[None], block=tried[0].block)


def best(row: Row) -> dict[str, Any] | None:
    """The best law of each seed's members, accuracy under it, and what it gains; None: no choice.

    Of members that are random themselves no law is sought.
    """
    if row.submodels == 1 or row.draws > 1 or not row.worst or row.worst.value == 0:
        return None
    by_seed = tried_by_seed({attack: row.by_attack[attack] for attack in sorted(row.attacks())})
    under = {seed: under_best_law(tried) for seed, tried in by_seed.items()}
    return {
        "laws": {seed: best_law(tried).tolist() for seed, tried in by_seed.items()},
        "score": metrics.score([*under.values()]),
        "gain": metrics.shared_difference(under, row.worst_by_seed),
    }
