"""How to compute on this machine: measured once, and kept.

The choice changes results in their last bits, so it must not change from run to run: it is kept in
`tuning.json` in the user's cache folder. Delete that file to have it measured anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from ..attacks.freezing import frozen
from ..attacks.seeding import generator
from ..defenses import Population
from ..defenses.stacking import ARITHMETIC, stackable
from ..defenses.surrogate import Plan, Surrogate
from ..files import write_atomically
from .paths import cache_folder

logger = logging.getLogger(__name__)

CHUNKS = (25, 50, 100, 200, 400, 800, 1600)
# A stack, a larger chunk or less precision must be this much faster to be chosen.
WORTH = 1.1
# And less precision this much faster where its finds are confirmed.
WORTH_CONFIRMING = 2.0
# What is chosen: raise it with every change, so that all plans are made anew.
CHOICES = 2
# Seconds for one pass after which no larger chunk is tried.
SLOW = 0.5

_known: dict[tuple[Path, str], Plan] = {}


def fastest_plan(population: Population, images: Tensor) -> Plan:
    """The fastest way to gradients of a population's logits in images (N, C, H, W).

    Measured when this machine first sees the architecture, the number of submodels, the shape of
    the images and these versions of torch and of stacks; that takes from a second to a minute.
    """
    path, key = _path(), _describe(population, images)
    if (path, key) not in _known:
        try:
            with _kept(path) as plans:
                if key not in plans:
                    plans[key] = asdict(measure_plan(population, images))
            _known[path, key] = Plan(**plans[key])
        except OSError as error:
            logger.warning("how to compute cannot be kept (%s): measured for this run", error)
            _known[path, key] = measure_plan(population, images)
    return _known[path, key]


def known() -> dict[str, dict[str, Any]]:
    """All plans that this process uses, by what they are for."""
    return {key: asdict(plan) for (_, key), plan in _known.items()}


def learn(plans: Mapping[str, Mapping[str, Any]]) -> None:
    """Use plans that another process measured, where this one has none."""
    for key, plan in plans.items():
        _known.setdefault((_path(), key), Plan(**plan))


def keep(plans: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep plans that other processes measured, beside those kept already; return all."""
    with _kept(_path()) as there:
        for key, plan in plans.items():
            there.setdefault(key, dict(plan))
    return there


def measure_plan(population: Population, images: Tensor) -> Plan:
    """Time the candidates on random images of the same shape.

    Networks whose code is not known are not called: they may count their calls.
    """
    if not all(stackable([submodel]) for submodel in population.submodels):
        return Plan(stacked=False, chunk=CHUNKS[2], dtype="float32")
    best, best_rate = Plan(stacked=False, chunk=CHUNKS[0], dtype="float32"), 0.0
    alike = len(population) > 1 and stackable(list(population.submodels))
    for stacked in (False, True) if alike else (False,):
        for plan, rate in _rates(population, images, stacked):
            if rate > WORTH * best_rate:
                best, best_rate = plan, rate
    alone = Population([population.submodels[0]])
    # On CPUs without the instructions bfloat16 takes up to fifty times as long: few images first.
    for count, worth in ((1, 1 / 3), (100, WORTH)):
        low = Plan(stacked=False, chunk=count, dtype="bfloat16")
        exact, rough = (
            _seconds(Surrogate(alone, low, low_precision=precision), _probe(count, images))
            for precision in (False, True)
        )
        if exact < worth * rough:
            return best
    # What a search finds is confirmed in float32, which costs a part of what is won.
    searches = "bfloat16" if exact > WORTH_CONFIRMING * rough else "float32"
    return replace(best, dtype="bfloat16", searches=searches)


def _rates(population: Population, images: Tensor, stacked: bool) -> Iterator[tuple[Plan, float]]:
    """Images a second by chunk, from small to large, as long as larger might be faster."""
    surrogate = Surrogate(population, Plan(stacked, max(CHUNKS), "float32"))
    highest = 0.0
    for chunk in CHUNKS:
        probe = _probe(chunk, images)
        try:
            seconds = _seconds(surrogate, probe)
        except torch.OutOfMemoryError:
            return
        rate = chunk / seconds
        yield Plan(stacked, chunk, "float32"), rate
        highest = max(highest, rate)
        if rate < highest / WORTH or seconds > SLOW:
            return


def _probe(count: int, images: Tensor) -> Tensor:
    """So many random images of the same shape; the global generators stay as they are."""
    drawn = torch.rand(count, *images.shape[1:], generator=generator(0, "probe"))
    return drawn.to(images.device)


def _seconds(surrogate: Surrogate, images: Tensor) -> float:
    """The shortest time to one gradient in a few tries, the first not counted."""
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    times: list[float] = []
    with frozen(surrogate):
        while len(times) < 2 or (sum(times) < SLOW and len(times) < 10):
            start = time.perf_counter()
            (gradient,) = torch.autograd.grad(surrogate.logits(images).square().sum(), images)
            # Reading a number waits for the device.
            gradient[0, 0, 0, 0].item()
            times.append(time.perf_counter() - start)
    return min(times[1:])


def _describe(population: Population, images: Tensor) -> str:
    device = images.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    printed = sorted({repr(submodel) for submodel in population.submodels})
    network = hashlib.sha256(str(printed).encode()).hexdigest()[:12]
    shape = "x".join(map(str, images.shape[1:]))
    return (
        f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"arithmetic {ARITHMETIC}, choices {CHOICES}, "
        f"{len(population)} of network {network} on {shape}"
    )


def _path() -> Path:
    return cache_folder() / "tuning.json"


@contextmanager
def _kept(path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """What is kept, by what it is for, locked; what is added to it meanwhile is kept, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        plans = _read(path)
        known = len(plans)
        yield plans
        if len(plans) > known:
            write_atomically(path, (json.dumps(plans, indent=1) + "\n").encode())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What is kept; a file that cannot be read is as good as none."""
    try:
        kept: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        for plan in kept.values():
            Plan(**plan)
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return kept
