"""With which probabilities a finite population is best drawn, under the attacks that were run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import eye_array, hstack, vstack

from . import metrics
from .metrics import Answers, Correct, Floats, halves, worst_case
from .rows import Row

# Laws whose scores differ by less than this share of an image are equal.
EQUAL = 1e-3


def best_law(correct: Correct) -> Floats:
    """The law p (n,) with the highest worst-case accuracy, by a linear programme.

    It maximizes the mean of t_j with t_j <= sum_i p_i correct[a, i, j] for each attack a; of equal
    laws it is the one whose largest probability is least.

    Args:
        correct: (attacks, n, N).
    """
    attacks, n, images = correct.shape
    # Images with the same answers under all attacks share a bound.
    kinds, counts = np.unique(correct.reshape(-1, images), axis=1, return_counts=True)
    answers = kinds.reshape(attacks, n, -1).swapaxes(1, 2).reshape(-1, n).astype(np.float64)
    # Unknowns: p, t of each kind, and the largest of p.
    worst = [-answers, vstack([eye_array(len(counts))] * attacks), np.zeros((len(answers), 1))]
    largest = [eye_array(n), np.zeros((n, len(counts))), -np.ones((n, 1))]
    bounds = vstack([hstack(worst), hstack(largest)])
    found = linprog(
        np.r_[np.zeros(n), -counts, EQUAL],
        A_ub=bounds,
        b_ub=np.zeros(bounds.shape[0]),
        A_eq=np.r_[np.ones(n), np.zeros(len(counts) + 1)][None],
        b_eq=[1.0],
    )
    law = np.maximum(found.x[:n], 0)
    return np.asarray(law / law.sum())


def under_best_law(tried: Sequence[Answers]) -> Answers:
    """The worst case under the best law, cross-fitted: (1, N).

    Chosen on one half of the images and scored on the other, as `metrics.best_member`.

    Args:
        tried: deterministic members under each attack, on the same images.
    """
    correct, half = np.stack([answers.correct for answers in tried]), halves(tried[0])
    s = np.empty(len(half))
    for here in (0, 1):
        law = best_law(correct[:, :, half != here])
        under = worst_case([replace(answers, probabilities=law.tolist()) for answers in tried])
        s[half == here] = under.s[half == here]
    return Answers(s[None], block=tried[0].block)


def best(row: Row) -> dict[str, Any] | None:
    """The best law of each seed's members, accuracy under it, and what it gains; None: no choice.

    Of members that are random themselves no law is sought.
    """
    if row.submodels == 1 or row.draws > 1 or not row.worst or row.worst.value == 0:
        return None
    tried = row.tried_by_seed
    under = {seed: under_best_law(answers) for seed, answers in tried.items()}
    return {
        "laws": {seed: best_law(np.stack([a.correct for a in tried[seed]])) for seed in tried},
        "score": metrics.score([*under.values()]),
        "gain": metrics.shared_difference(under, row.worst_by_seed),
    }
