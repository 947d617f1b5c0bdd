"""The command-line options that pytest and `python -m benchmarks judge` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.paths import cache_folder


def radius(text: str) -> float:
    """A radius: `0.3` or `8/255`."""
    from attacks import parse_eps

    try:
        return parse_eps(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text!r}")
    return int(text)


def add_options(add: Callable[..., object], *, results: Path) -> None:
    """Add them by argparse's `add_argument` or pytest's `addoption`."""
    add(
        "--budget",
        choices=["smoke", "quick", "paper"],
        default="quick",
        help="how much to spend: smoke proves that everything runs, quick (default) shows the "
        "effects, paper is the full protocol",
    )
    add(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="where to train and attack; auto (default): cuda, else mps, else cpu",
    )
    add("--seed", type=seed, default=0, help="of everything random (default: 0)")
    add(
        "--data-root",
        type=Path,
        default=cache_folder() / "data",
        help="folder with MNIST/ or cifar-10-batches-py/ as torchvision lays them out, or with "
        "<dataset>/{train,test}/<class>/* images; missing data is downloaded into it "
        "(default: %(default)s)",
    )
    add(
        "--results",
        type=Path,
        default=results,
        help="folder for records; the leaderboard is written beside it (default: %(default)s)",
    )
    add(
        "--norm",
        choices=["Linf", "L2"],
        default="Linf",
        help="norm that defenses are attacked in; attacks that do not support it are left out "
        "(default: Linf)",
    )
