"""How attacks on one network carry over to the others of its population."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ...metrics import Correct, Floats, Score, half_width, variance_of_mean


def transfer(correct: Correct) -> Floats:
    """The accuracy of b on images crafted on a, from correct[a, b, j].

    Args:
        correct: (n, n * draws, N), crafted on a and scored on the draws of b.

    Returns:
        (n, n): attacked by themselves on the diagonal.
    """
    n = len(correct)
    return np.asarray(correct.reshape(n, n, -1).mean(axis=2, dtype=np.float64))


def network_shares(accuracies: npt.NDArray[np.floating[Any]]) -> Floats:
    """(n,), what each network adds to MRA, as the one attacked and as one that answers.

    Their mean is MRA, and their spread that of both roles: a network's answers to images made for
    others are alike in all rows, so the spread of its rows alone would lack them.

    Args:
        accuracies: (n, n), the share of images that network j answers correctly when i is attacked.
    """
    exact = np.asarray(accuracies, np.float64)
    return np.asarray(exact.mean(axis=1) + exact.mean(axis=0) - exact.mean())


def means_apart(
    first: npt.NDArray[np.floating[Any]], second: npt.NDArray[np.floating[Any]]
) -> Score:
    """The difference of two means of independent shares, Welch's; [-1, 1] for a single share."""
    sides = [np.asarray(side, np.float64) for side in (first, second)]
    value = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) == 1:
        return Score(value, -1.0, 1.0)
    half = half_width(variance_of_mean(sides[0]) + variance_of_mean(sides[1]))
    return Score(value, max(-1.0, value - half), min(1.0, value + half))
