"""The datasets, a file each: how it is read, its facts, and its numbers by budget."""

# isort: off
# The quickest first: cases run in this order.
from . import digits as digits
from . import mnist as mnist
from . import cifar10 as cifar10

# isort: on
from .data import Dataset, load
from .registry import (
    DATASETS,
    DatasetEntry,
    DatasetError,
    DatasetMissingError,
    Published,
    Raw,
    experiment,
    register_dataset,
)

DATASETS.load_plugins()

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetEntry",
    "DatasetError",
    "DatasetMissingError",
    "Published",
    "Raw",
    "experiment",
    "load",
    "register_dataset",
]
