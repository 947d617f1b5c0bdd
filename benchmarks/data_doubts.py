"""Whether images and labels fit what a population answers: each doubt is one line with the cure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..defenses import Population
from ..metrics import Answers, difference, score
from .environment import full_precision
from .measure import answers_of

# What would explain low accuracy: the accuracy that it would leave, and the words.
Explanation = tuple[float, str]

# Images that are tried in other arrangements; the share of copies that an interval bears.
ARRANGED, COPIED = 200, 0.01
# Of fewer images nothing is said of which classes they are.
LEAST = 50
# How near copies are, as a share of the spread of all images, when they are shown on 8 x 8 pixels
# and whole: noise of 2/255 leaves at most 0.015 of the first on digits, MNIST and CIFAR-10, whose
# nearest images are 0.05 apart. So few values say little: of them copies are equal.
NEAR, NEAR_WHOLE, FEW = 0.03, 0.1, 64


def doubts(
    population: Population,
    names: Sequence[str],
    answers: Sequence[npt.NDArray[np.int64]],
    images: Tensor,
    labels: Tensor,
    classes: int,
    batch_size: int,
) -> list[str]:
    """What is odd about images (N, C, H, W) and labels (N,).

    Args:
        names: of the members.
        answers: of each member the classes that it answers, (draws, N); K where it answers none.
    """
    with full_precision():
        found = _copies(images)
    every, right = np.concatenate(answers), labels.cpu().numpy()
    law, draws = population.probabilities, population.draws
    found += _sample(right, classes)
    tried = (
        _arrangement(population, images[:ARRANGED], labels[:ARRANGED], batch_size),
        _shifted(every, right, law, draws) or _order_in_doubt(every, right, classes, law, draws),
    )
    if explanations := [explanation for explanation in tried if explanation]:
        return [*found, max(explanations)[1]]
    return found + (
        _members(names, answers, right, classes, draws)
        or _unlabelled(every, right, classes, law, draws)
        or _chance(every, right, classes, law, draws)
    )


def _sample(labels: npt.NDArray[np.int64], classes: int) -> list[str]:
    """Whether images seem to be the first of many that lie in order of their classes."""
    seen = np.unique(labels)
    there, blocks = len(seen), 1 + np.count_nonzero(np.diff(labels))
    # Of as many images at random so many classes would be there.
    expected = classes * (1 - (1 - 1 / classes) ** labels.size)
    run = seen[-1] - seen[0] + 1 == there
    if labels.size < LEAST or there >= expected / 2 or blocks > there or not run:
        return []
    return [
        f"images are of {there} of {classes} classes, in their order, as the first of a folder "
        "are: accuracy and intervals are of these classes alone; take some of all images at "
        "random (torch.randperm)"
    ]


def _copies(images: Tensor) -> list[str]:
    """Whether many images are copies of others, or differ from them by noise."""
    count, values = len(images), images[0].numel()
    equal = count - len({sha256(image.cpu().numpy().tobytes()).digest() for image in images})
    whole = images.detach().float()
    whole = (whole - whole.mean(0)).flatten(1)
    small = adaptive_avg_pool2d(whole.view(images.shape), 8).flatten(1)
    near, near_whole = (
        share * of.norm(dim=1).mean() for share, of in ((NEAR, small), (NEAR_WHOLE, whole))
    )
    copies = 0
    for first in range(0, count if values >= FEW else 0, 1000):
        rows = torch.arange(first, min(first + 1000, count), device=images.device)
        gaps = torch.cdist(small[rows], small[: first + len(rows)])
        later = torch.ones_like(gaps, dtype=torch.bool).triu(first)
        gap, at = gaps.masked_fill(later, torch.inf).min(1)
        apart = (whole[rows] - whole[at]).norm(dim=1)
        copies += int(((gap <= near) & (apart <= near_whole)).sum())
    copies = max(copies, equal)
    if copies <= max(1, COPIED * count):
        return []
    return [
        f"at least {copies} of {count} images are copies of others, or differ from them by noise, "
        "and intervals count each as an image of its own: give each once, unless each was drawn by "
        "itself"
    ]


def _members(
    names: Sequence[str],
    answers: Sequence[npt.NDArray[np.int64]],
    labels: npt.NDArray[np.int64],
    classes: int,
    draws: int,
) -> list[str]:
    """Whether single members have another order of classes."""
    if len(answers) == 1:
        return []
    each = [_order_in_doubt(one, labels, classes, None, draws) for one in answers]
    return [f"of {name} the {said[1]}" for name, said in zip(names, each, strict=True) if said]


def _unlabelled(
    answers: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: int,
    law: Sequence[float] | None,
    draws: int,
) -> list[str]:
    """Whether most wrong answers are one class that is no image's label."""
    counts = np.bincount(answers.ravel(), minlength=classes)[:classes]
    seen = np.unique(labels)
    counts[seen] = 0
    # Of two classes, or where most have no images, it is an error like others.
    if not counts.any() or classes == 2 or len(seen) <= classes / 2:
        return []
    share = Answers(answers == counts.argmax(), law, draws).s.mean()
    right = Answers(answers == labels, law, draws).s.mean()
    # Where hardly anything is right, there is another cause.
    if right < 0.5 or share * labels.size < 4 or share < max(0.05, (1 - right) / 2):
        return []
    return [
        f"class {counts.argmax()}, which no label names, is the answer to {share:.1%} of images, "
        "and counts as wrong there, also where it stands for a rejection: is a class missing?"
    ]


def _chance(
    answers: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: int,
    law: Sequence[float] | None,
    draws: int,
) -> list[str]:
    """Whether clean accuracy may be luck."""
    right = Answers(answers == labels, law, draws)
    # Of few images even good answers may be luck.
    near = min(2 / classes, (1 + 1 / classes) / 2)
    if right.s.mean() > near or score([right]).low > 1 / classes:
        return []
    return [
        f"clean accuracy is {right.s.mean():.1%} on {labels.size} images, not surely above "
        f"chance ({1 / classes:.1%}): check labels, and the normalisation inside the modules"
    ]


def _arrangement(
    population: Population, images: Tensor, labels: Tensor, batch_size: int
) -> Explanation | None:
    """Whether the first member is right more often on images that are arranged otherwise."""
    mean, deviation = (f(images, (0, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
    arranged = {
        "": images,
        "1 - image": 1 - images,
        "rows in reverse order": images.flip(2),
        "columns in reverse order": images.flip(3),
        "255 * image": 255 * images,
        "2 * image - 1": 2 * images - 1,
        "channels of mean 0 and deviation 1": (images - mean) / deviation.clamp_min(1e-6),
    }
    if images.shape[1] > 1:
        arranged["channels in reverse order"] = images.flip(1)
        # What a reshape in place of a permutation does, in either direction.
        last = images.reshape(-1, *images.shape[2:], images.shape[1]).permute(0, 3, 1, 2)
        first = images.permute(0, 2, 3, 1).reshape(images.shape)
        arranged["channels last in memory, where they were reshaped to be first"] = last
        arranged["channels first in memory, where they were reshaped to be last"] = first
    if images.shape[2] == images.shape[3]:
        arranged["rows for columns"] = images.transpose(2, 3)
    member = Population([population.submodels[0]])
    right = {}
    for how, some in arranged.items():
        # A network may refuse what is not in [0, 1].
        with suppress(Exception):
            answers = answers_of(member, some.contiguous(), labels, seed=0, batch_size=batch_size)
            right[how] = Answers(answers.numpy())
    plain = right.pop("")
    how = max(right, key=lambda arrangement: right[arrangement].s.mean())
    gained = difference({0: right[how]}, {0: plain})
    # Twice as sure as of one: the best of several is tried.
    if gained.value <= 2 * (gained.value - gained.low):
        return None
    return float(right[how].s.mean()), (
        f"clean accuracy is {plain.s.mean():.1%} on {len(labels)} images, and "
        f"{right[how].s.mean():.1%} with {how}: give images as the networks saw them in training, "
        "in [0, 1], and put what else was done to them inside the modules"
    )


def _order_in_doubt(
    answers: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: int,
    law: Sequence[float] | None,
    draws: int,
) -> Explanation | None:
    """The order of classes that fits best, if that of each half fits the other half better."""

    def seen(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How often each class, or none, was answered to images of each label."""
        counts = np.zeros((classes + 1, classes), np.int64)
        np.add.at(counts, (answers[:, some], labels[some]), 1)
        return counts

    def order(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.append(linear_sum_assignment(seen(some)[:classes], maximize=True)[1], classes)

    def right(answers: npt.NDArray[np.int64]) -> Answers:
        return Answers(answers == labels, law, draws)

    if len(np.unique(labels)) < 2:
        return None
    # Of each class one half, also where labels alternate.
    by_class = np.argsort(labels, kind="stable")
    halves = by_class[::2], by_class[1::2]
    fitted = answers.copy()
    for fit, tried in (halves, halves[::-1]):
        fitted[:, tried] = order(fit)[answers[:, tried]]
    if difference({0: right(fitted)}, {0: right(answers)}).low <= 0:
        return None
    best, counts = order(by_class), seen(by_class)
    before, after = right(answers).s.mean(), right(best[answers]).s.mean()
    # Where nothing was answered, any label fits as well.
    told = [k for k in range(classes) if best[k] != k and counts[k, best[k]] > counts[k, k]]
    listed = (
        ", ".join(map(str, some[:10])) + ", ..." * (len(some) > 10) for some in (best[told], told)
    )
    return float(after), (
        f"clean accuracy is {before:.1%}, and {after:.1%} with labels {next(listed)} for classes "
        f"{next(listed)}: check the order of classes"
    )


def _shifted(
    answers: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    law: Sequence[float] | None,
    draws: int,
) -> Explanation | None:
    """From where on answers (rows, N) fit the labels of neighbours better; None: nowhere.

    As where an image or a label was left out. By the greatest height of a random walk, which luck
    hardly ever reaches, where answers also fit better than those to other images would.
    """
    right = Answers(answers == labels, law, draws).s
    # How often answers and labels of any two images agree.
    answered, labelled = (
        np.bincount(of.ravel(), minlength=labels.max() + 1) for of in (answers, labels)
    )
    chance = float(answered[: len(labelled)] @ labelled) / (answers.size * labels.size)
    usual = max(float(right.mean()), chance)
    luck = 4 * math.sqrt(2 * usual * (1 - usual) * len(labels)) + 4
    # The first has none before it, the last none after.
    for where, step in (("before", 1), ("after", -1)) if len(labels) > 2 else ():
        moved = np.roll(labels, step)
        fit = Answers(answers == moved, law, draws).s
        heights = np.cumsum((fit - right + right.mean() - usual)[-2:0:-1])[::-1]
        first = int(heights.argmax()) + 1
        beyond = slice(first, -1)
        pairs = set(zip(labels[beyond], moved[beyond], strict=True))
        # Where neighbours have the next class, another order of classes looks the same.
        told = len(pairs) > len(set(labels[beyond]))
        if told and min(heights.max(), (fit[beyond] - chance).sum()) > luck:
            reached = (right[:first].sum() + fit[first:].sum()) / len(labels)
            return float(reached), (
                f"from image {first} on clean accuracy is {right[first:].mean():.1%}, and "
                f"{fit[beyond].mean():.1%} with the labels of the images {where} them: was an "
                "image left out, or a label?"
            )
    return None
