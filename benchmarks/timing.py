"""Measuring speed: how much, jobs timed in turn, the machine's own limit, and a process's memory.

Run with N, IMAGES and DEVICE it prints the peak memory of one attack in GiB: in a process of its
own, since a process's peak never falls.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ..attacks import ThreatModel
from ..defenses.architectures import lenet5
from ..defenses.training import initialise
from .evaluation import evaluate

Job = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class SpeedTest:
    """How much `test_speed.py` times; the defaults are those of "quick" and "paper".

    Attributes:
        images: attacked at once, by network.
        submodels: n, by network.
        steps: of PGD; draws: of a random network, at each of them.
        attacked, attack_steps, queries: of whole attacks the images, steps of APGD, and queries of
            Square.
        batches: that each submodel is trained on, by network.
        rounds: how often each job is timed.
        sizes, counts, lengths: n, N and steps at which the growth of cost is measured.
        memory_images: N at which memory is measured, with the last of `sizes`.
    """

    images: Mapping[str, int] = field(default_factory=lambda: {"lenet5": 1000, "resnet18": 64})
    submodels: Mapping[str, int] = field(default_factory=lambda: {"lenet5": 10, "resnet18": 2})
    steps: int = 40
    draws: int = 16
    attacked: int = 50
    attack_steps: int = 100
    queries: int = 5000
    batches: Mapping[str, int] = field(default_factory=lambda: {"lenet5": 14, "resnet18": 1})
    rounds: int = 5
    sizes: tuple[int, ...] = (1, 2, 5, 10, 20)
    counts: tuple[int, ...] = (100, 300, 1000)
    lengths: tuple[int, ...] = (5, 10, 20, 40)
    memory_images: tuple[int, ...] = (100, 1000, 10_000)


SMOKE = SpeedTest(
    images={"lenet5": 20, "resnet18": 4},
    submodels={"lenet5": 2, "resnet18": 2},
    steps=2,
    draws=2,
    attacked=2,
    attack_steps=2,
    queries=10,
    batches={"lenet5": 2, "resnet18": 1},
    rounds=1,
    sizes=(1, 2),
    counts=(10, 20),
    lengths=(1, 2),
    memory_images=(10,),
)

# Seconds for one product after which no larger one is tried.
SLOW = 1.0


def seconds(jobs: Mapping[str, Job], *, rounds: int, device: torch.device) -> dict[str, float]:
    """The median time of each job over rounds in which all take turns.

    A machine that slows down for a while so slows all of them down. One round before is not counted
    unless there is only one.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + (rounds > 1)):
        for name, job in jobs.items():
            _wait(device)
            start = time.perf_counter()
            job()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[-rounds:]) for name, taken in times.items()}


def best(jobs: Mapping[str, Job], *, device: torch.device) -> str:
    """The name of the fastest job."""
    taken = seconds(jobs, rounds=2, device=device)
    return min(taken, key=lambda name: taken[name])


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The machine's fastest matrix product of a few sizes: floating-point operations a second."""
    rates = []
    for size in (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        product: dict[str, Job] = {"product": partial(torch.matmul, a, b)}
        taken = seconds(product, rounds=1, device=device)["product"]
        if taken < SLOW:
            taken = seconds(product, rounds=5, device=device)["product"]
        rates.append(2 * size**3 / taken)
        if taken >= SLOW:
            # Without instructions for the type, larger ones take minutes and are no faster.
            break
    return max(rates)


def gradient_operations(network: nn.Module, image: Tensor) -> int:
    """Floating-point operations of one image's gradient: forward, and backward to the image."""
    network.eval().requires_grad_(False)
    leaf = image.unsqueeze(0).clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        network(leaf).sum().backward()
    return int(counter.get_total_flops())


def training_operations(network: nn.Module, images: Tensor) -> float:
    """Floating-point operations to train on one image: forward, and backward to the weights."""
    network.train().requires_grad_(True)
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(network(images), labels).backward()
    return float(counter.get_total_flops() / len(images))


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(submodels: int, images: int, device: torch.device) -> float:
    """The most GiB that this process has held, after an attack on an untrained population."""
    population = initialise(lenet5, submodels, seed=0).to(device).eval()
    evaluate(
        population,
        torch.rand(images, 1, 32, 32, device=device),
        torch.zeros(images, dtype=torch.int64, device=device),
        "pgd-mean-ce",
        ThreatModel("Linf", 0.004),
        parameters={"loss": "mean-ce", "steps": 3, "restarts": 1},
        batch_size=1000,
    )
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    if status.exists() and (kib := re.search(r"VmHWM:\s*(\d+) kB", status.read_text("utf-8"))):
        # Not getrusage: on Linux that remembers the process that started this one.
        return int(kib[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


if __name__ == "__main__":
    print(peak_memory(int(sys.argv[1]), int(sys.argv[2]), torch.device(sys.argv[3])))
