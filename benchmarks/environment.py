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


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` stands for on this machine.

    Raises:
        ValueError: the machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, there in present.items() if there), "cpu")
    if not present.get(name, True):
        raise ValueError(f"device {name!r} is not available on this machine; use auto or cpu")
    return torch.device(name)


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
