"""Seeds: every random choice is drawn from a generator named after what it is for."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every part of `purpose`, in order."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator seeded by `derive_seed`, on the CPU so that devices draw the same."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside and restore them after.

    For code that draws from global state: module initialisers, torchattacks, random networks.
    """
    devices = [device] if device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            if device.type == "cpu":
                # torch.manual_seed notes a traceback for every kind of accelerator that is missing.
                torch.default_generator.manual_seed(seed)
            else:
                torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
