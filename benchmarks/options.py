"""The command-line options of pytest, as a plugin, and of `python -m benchmarks judge`.

pyproject.toml names the plugin: what follows an option that pytest does not know yet, such as the
folder after `--results`, is taken for tests.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ..files import folder_named
from ..leaderboard import LOCAL
from .paths import cache_folder

# What to say of a shard without any case, where there is one.
EMPTY_SHARD = pytest.StashKey[str]()


def radius(text: str) -> float:
    """A radius: `0.3` or `8/255`."""
    from ..attacks import parse_eps

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


def devices(text: str) -> str:
    """A list of devices, as `resolve_devices` takes it."""
    if not re.fullmatch(r"(auto|cpu|mps|cuda(:\d+)?)(,(cpu|mps|cuda(:\d+)?))*", text):
        raise argparse.ArgumentTypeError(
            f"must be auto, cpu, cuda, mps, or a list such as cuda:0,cuda:2, got {text!r}"
        )
    return text


def shard(text: str) -> tuple[int, int]:
    """Which part of how many: `2/8`."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be i/n with i from 1 to n, such as 2/8: {text!r}")
    return int(number), int(count)


def share(text: str) -> float:
    """A share of a GPU, or all of it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a share such as 0.5, or 1, got {text!r}")
    return value


def add_options(add: Callable[..., object], *, results: Path) -> None:
    """Add them by argparse's `add_argument` or pytest's `addoption`."""
    add(
        "--budget",
        choices=["smoke", "quick", "paper-short", "paper"],
        default="quick",
        help="how much to spend: smoke proves that everything runs, quick (default) shows the "
        "effects, paper is the full protocol, paper-short the same but for its long training",
    )
    add(
        "--device",
        type=devices,
        metavar="DEVICE[,DEVICE]",
        default="auto",
        help="where to train and attack: cpu, mps, cuda (all that are visible) or a list such as "
        "cuda:0,cuda:2; auto (default): cuda, else mps, else cpu",
    )
    add("--seed", type=seed, default=0, help="of everything random (default: 0)")
    add(
        "--data-root",
        type=folder_named,
        default=cache_folder() / "data",
        help="folder with MNIST/ or cifar-10-batches-py/ as torchvision lays them out, with "
        "cifar10/plain_text/*.parquet as Hugging Face does, or with "
        "<dataset>/{train,test}/<class>/* images; missing data is downloaded into it "
        "(default: %(default)s)",
    )
    add(
        "--results",
        type=folder_named,
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("randomized defense bench")
    add_options(group.addoption, results=LOCAL)
    group.addoption(
        "--publish",
        action="store_true",
        help="write the repository's own records, pages and README instead",
    )
    group.addoption(
        "--store",
        type=folder_named,
        default=cache_folder() / "store",
        help="folder for trained populations (default: %(default)s)",
    )
    group.addoption("--rerun", action="store_true", help="measure again what has a record already")
    group.addoption(
        "--retrain", action="store_true", help="train again what is in the store, and measure it"
    )
    group.addoption(
        "--time-limit",
        type=_seconds,
        metavar="SECONDS",
        help="fail a case that takes longer, training included, and go on (default: by budget, "
        "from ten minutes to a week)",
    )
    group.addoption(
        "--eps",
        type=radius,
        action="append",
        default=[],
        metavar="EPS",
        help="rank at this radius in the norm, such as 0.3 or 8/255, instead of the dataset's; "
        "repeatable",
    )
    group.addoption(
        "--submodels",
        type=positive,
        metavar="N",
        help="size of the populations, instead of the budget's; a defense of one member stays one",
    )
    group.addoption(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="who does the work: this machine, with a process for each of several devices "
        "(default), or a Ray cluster",
    )
    group.addoption(
        "--address",
        default="auto",
        help="of the Ray cluster; auto (default): as it is found here; local: start one",
    )
    group.addoption(
        "--gpus",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="what a worker takes of a GPU under Ray, such as 0.5 (default: 1)",
    )
    group.addoption(
        "--shard",
        type=shard,
        metavar="I/N",
        help="run the I-th of N parts that take equally long by committed records",
    )
    group.addoption(
        "--plan",
        action="store_true",
        help="print what would be trained and measured, and how long it would take; start nothing",
    )
    group.addoption(
        "--robustbench",
        action="append",
        default=[],
        metavar="NAME",
        help="a model of RobustBench's zoo for the norm, as the defense robustbench-<name>, with "
        "its weights under <data-root>/models as that library lays them out; repeatable",
    )
