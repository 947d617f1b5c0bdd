"""Measuring speed: jobs timed in turn, the machine's own limit, and a process's memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

Job = Callable[[], object]


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
        taken = seconds({"product": partial(torch.matmul, a, b)}, rounds=5, device=device)
        rates.append(2 * size**3 / taken["product"])
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
