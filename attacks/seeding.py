"""Seeds: every random choice is drawn from a generator named after what it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Seed torch's global generators inside the block and restore them after it.

    For code that draws from global state: module initialisers, torchattacks.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if device.type == "cpu":
            # torch.manual_seed notes a traceback for every kind of accelerator that is not there.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield
