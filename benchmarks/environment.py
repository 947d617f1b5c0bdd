"""This machine: its device, versions and commit, as records name them."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..defenses.stacking import ARITHMETIC

# What a number depends on; records and the page do not count as changes.
CODE = ("attacks", "defenses", "benchmarks")


def resolve_devices(names: str) -> list[torch.device]:
    """The devices that a list such as `auto`, `cpu`, `cuda` or `cuda:0,cuda:2` stands for.

    `cuda` is every one that is visible, as `CUDA_VISIBLE_DEVICES` says; `auto` as well, or `mps`,
    or `cpu`.

    Raises:
        ValueError: the machine has no such device.
    """
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    present = {"cpu": ["cpu"], "cuda": gpus, "mps": ["mps"] * torch.backends.mps.is_available()}
    present |= {gpu: [gpu] for gpu in gpus}
    present["auto"] = gpus or present["mps"] or ["cpu"]
    devices = []
    for name in names.split(","):
        if not present.get(name):
            raise ValueError(f"device {name!r} is not available on this machine; use auto or cpu")
        devices += [torch.device(device) for device in present[name]]
    return devices


def resolve_device(names: str) -> torch.device:
    """The first of `resolve_devices`."""
    return resolve_devices(names)[0]


@cache
def environment(device: torch.device) -> dict[str, str]:
    """Versions, hardware and commit, for a record."""
    packages = ("torch", "torchvision", "torchattacks", "numpy")
    return {
        "commit": (_git("rev-parse", "HEAD") or "unknown")
        + ("+changes" if _git("status", "--porcelain", "--", *CODE) else ""),
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "arithmetic": ARITHMETIC,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Subnormal numbers count as zero inside.

    Confident networks have subnormal gradients, which CPUs compute many times slower.
    """
    smallest = torch.finfo(torch.float64).smallest_normal
    before = bool(torch.tensor(smallest, dtype=torch.float64) / 2 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def full_precision() -> Iterator[None]:
    """On a GPU, float32 inside is float32, not a type with 10 bits of mantissa."""
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


def _processor() -> str:
    """The processor's model, where the system tells."""
    try:
        described = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.processor() or "unknown"
    model = re.search(r"model name\s*: (.*)", described)
    return model[1] if model else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    # This project's own, not the one that it is installed in or that GIT_DIR names.
    command = ["git", "-C", str(Path(__file__).parents[1]), "--git-dir=.git", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode(errors="replace").strip()
