"""The registry of datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...attacks.registry import Registry
from ...leaderboard.rows import BUDGETS
from ..experiment import Experiment


class DatasetError(RuntimeError):
    """Data that cannot be used; the message says what was expected where."""


class DatasetMissingError(DatasetError):
    """Data that is not there and could not be downloaded."""


@dataclass(frozen=True)
class Raw:
    """Decoded arrays of both splits.

    Attributes:
        train_images, test_images: (N, S, S), or (N, S, S, C) if there are several channels, uint8.
        train_labels, test_labels: (N,) integers in [0, classes).
        source: the library or the kind of folder the images came from.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: str


Read = Callable[[Path], Raw]


@dataclass(frozen=True)
class Published:
    """A data set as it was published, known by SHA-256 whatever files it is read from.

    Attributes:
        source: what records call it.
        train, test: of the images and labels of each split, see `data.sha256_of`.
        images: of the training images in any order, see `data.sha256_in_any_order`; None: not told
            from others when their order or labels differ.
        first: how many test images, the first, `test` is of, and the test images that are used are
            the first ones; None: of all, and they are used in a fixed random order.
    """

    source: str
    train: str
    test: str
    images: str | None = None
    first: int | None = None


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset's facts, and how to read it.

    Attributes:
        read: `f(root)` reads it from the folder of all data, or downloads it there.
        channels: 1 for grey, 3 for colour.
        network: `f(channels, classes)` makes one untrained submodel, unless a defense brings its
            own; its input is (N, channels, 32, 32).
        experiments: its numbers, by budget.
        published: what its images and labels should be; None: nothing to compare with.
        eps_unit: in which its radii in Linf are written: 1 / 255 makes eps "8/255".
    """

    name: str
    read: Read
    channels: int
    classes: int
    network: Callable[[int, int], nn.Module]
    experiments: Mapping[str, Experiment]
    published: Published | None = None
    eps_unit: float = 1.0

    def standard_network(self) -> nn.Module:
        """Its own network, untrained: (N, channels, 32, 32) -> (N, classes)."""
        return self.network(self.channels, self.classes)


DATASETS: Registry[DatasetEntry] = Registry("dataset")


def register_dataset(
    name: str, *, experiments: Mapping[str, Experiment], **facts: Any
) -> Callable[[Read], Read]:
    """Decorator that registers a reader; see `DatasetEntry` for the facts.

    Raises:
        ValueError: a bad name, or a budget without an experiment.
    """
    if set(experiments) != set(BUDGETS):
        raise ValueError(
            f"dataset {name!r} has experiments for {', '.join(experiments)}; "
            f"expected {', '.join(BUDGETS)}, as benchmarks.experiment.standard makes them"
        )

    def register(read: Read) -> Read:
        DATASETS.add(name, DatasetEntry(name, read, experiments=experiments, **facts))
        return read

    return register


def experiment(budget: str, dataset: str) -> Experiment:
    """What a budget spends on a dataset.

    Raises:
        LookupError: unknown budget or dataset.
    """
    experiments = DATASETS[dataset].experiments
    if budget not in experiments:
        raise LookupError(
            f"no budget {budget!r} for dataset {dataset!r} (budgets: {', '.join(experiments)})"
        )
    return experiments[budget]
