"""`python -m benchmarks judge`: a verdict on networks from files, without writing any."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from torch import nn

from ..defenses import Population, load_network
from ..leaderboard.publish import publish
from .datasets import DATASETS, experiment, load
from .environment import resolve_device
from .evaluation import numbers_for, subject_of
from .options import add_options, positive, radius
from .paths import obstacle
from .session import ranked_at
from .verdict import judge_subject

DESCRIPTION = """\
Attacks networks of yours, of which one, drawn at random, answers each query, with everything that
supports the norm; prints the verdict, and writes the records and their page. Your networks take
images in [0, 1], (N, C, 32, 32) of the suite's own data sets, and hold their own normalisation; a
network of another size resizes them itself.
"""
EXAMPLE = """\
python -m randomized_defense_bench.benchmarks judge my_module:build
  --weights a.safetensors b.safetensors --dataset cifar10 --eps 8/255 --norm Linf --draws 16
"""


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `judge` and what runs it."""
    parser.set_defaults(run=run)
    parser.description, parser.epilog = DESCRIPTION, f"For example: {EXAMPLE}"
    parser.usage = "%(prog)s [MODULE:BUILD] [--weights FILE ...] [options]"
    parser.add_argument(
        "build",
        nargs="?",
        metavar="MODULE:BUILD",
        help="a function (or class) without arguments, in a module that can be imported from here, "
        "that makes the network for the weights of one file; without --weights it returns the "
        "finished network, or a list of them; not needed for TorchScript",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="a file for each network: safetensors, PyTorch's file of a state dict, or TorchScript",
    )
    parser.add_argument(
        "--sha256",
        nargs="+",
        default=[],
        metavar="HASH",
        help="of each file, in their order: another file is refused; TorchScript needs it, since "
        "it is a program",
    )
    parser.add_argument(
        "--dataset",
        choices=[*DATASETS],
        required=True,
        help="whose test images; MNIST's and the digits are enlarged to 32 x 32",
    )
    parser.add_argument("--name", default="mine", help="what records and page call it: %(default)s")
    parser.add_argument(
        "--eps", type=radius, help="radius, such as 0.3 or 8/255 (default: the dataset's)"
    )
    parser.add_argument(
        "--draws",
        type=positive,
        default=1,
        metavar="N",
        help="fresh passes over which expectations are taken, if networks are random in themselves",
    )
    parser.add_argument(
        "--images", type=positive, metavar="N", help="test images (default: the budget's)"
    )
    add_options(parser.add_argument, results=Path("mine/results"))


def run(options: argparse.Namespace) -> int:
    """Judge, print, write; return 0, or 2 after one line that says what is wrong."""
    try:
        _judge(options)
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {options.results}", file=sys.stderr)
        return 130
    except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        print(f"error: {first}", file=sys.stderr)
        return 2
    return 0


def _judge(options: argparse.Namespace) -> None:
    if problem := obstacle(options.results):
        raise ValueError(f"--results: {problem}; name another folder")
    device = resolve_device(options.device)
    numbers = experiment(options.budget, options.dataset)
    named = () if options.eps is None else (options.eps,)
    threat_model, *_ = ranked_at(options.dataset, numbers, options.norm, named)
    members = _networks(options.build, options.weights, options.sha256)
    population = Population(members, draws=options.draws).to(device)
    images = options.images or min(
        filter(None, (numbers.test_images, numbers.most_images(population))), default=None
    )
    data = load(options.dataset, options.data_root, 1, images)
    subject = subject_of(
        population,
        data.test_images.to(device),
        data.test_labels.to(device),
        threat_model,
        dataset=options.dataset,
        name=options.name,
        batch_size=numbers.batch_size,
    )
    options.results.mkdir(parents=True, exist_ok=True)
    verdict = judge_subject(
        replace(subject, source=data.source, sha256=data.sha256),
        threat_model,
        numbers_for(options.dataset, options.budget, threat_model, numbers.batch_size),
        budget=options.budget,
        seed=options.seed,
        results=options.results,
    )
    print(verdict)
    print(f"records: {options.results}; page: {publish(options.results)}")


def _networks(build: str | None, files: Sequence[Path], pins: Sequence[str]) -> list[nn.Module]:
    """The networks of the files, or those that are built."""
    function = _named(build) if build else None
    if pins and len(pins) != len(files):
        raise ValueError(f"--sha256: {len(pins)} hashes for {len(files)} files")
    if files:
        pinned = zip_longest(files, pins)
        return [load_network(file, function, sha256=pin) for file, pin in pinned]
    if function is None:
        raise ValueError("nothing to judge: name MODULE:BUILD, --weights FILE ..., or both")
    built = function()
    listed = [built] if isinstance(built, nn.Module) else built
    if not (isinstance(listed, Sequence) and all(isinstance(one, nn.Module) for one in listed)):
        raise ValueError(f"{build} must return a network or a list of them, got {built!r}")
    return list(listed)


def _named(name: str) -> Callable[[], nn.Module]:
    """What `module:function` names, with its errors told; ValueError: it names nothing."""
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"{name!r} is not MODULE:BUILD, such as my_module:build")
    try:
        with _without_arguments():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{module_name} cannot be imported ({_told(error)})") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{module_name} has no function {attribute!r}{hint}")

    def build() -> nn.Module:
        try:
            with _without_arguments():
                built: nn.Module = function()
        except (Exception, SystemExit) as error:
            raise ValueError(f"{name} failed ({_told(error)})") from error
        return built

    return build


@contextmanager
def _without_arguments() -> Iterator[None]:
    """Python as it is without options on the command line, for a script that reads its own.

    It may go to another folder, too, while paths on the command line are from here.
    """
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        with chdir(Path.cwd()):
            yield
    finally:
        sys.argv = arguments


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
