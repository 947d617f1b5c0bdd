"""How much `test_speed.py` times under each budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SpeedTest:
    """How much is timed.

    Attributes:
        images: attacked at once, by network.
        submodels: n, by network.
        steps: of PGD.
        batches: that each submodel is trained on, by network.
        rounds: how often each job is timed.
        sizes, counts, lengths: n, N and steps at which the growth of cost is measured.
        memory_images: N at which memory is measured, with the last of `sizes`.
    """

    images: Mapping[str, int]
    submodels: Mapping[str, int]
    steps: int
    batches: Mapping[str, int]
    rounds: int
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    lengths: tuple[int, ...]
    memory_images: tuple[int, ...]


_SPEED_QUICK = SpeedTest(
    images={"lenet5": 1000, "resnet18": 64},
    submodels={"lenet5": 10, "resnet18": 2},
    steps=40,
    batches={"lenet5": 14, "resnet18": 1},
    rounds=5,
    sizes=(1, 2, 5, 10, 20),
    counts=(100, 300, 1000),
    lengths=(5, 10, 20, 40),
    memory_images=(100, 1000, 10_000),
)
SPEED_TESTS = {
    "smoke": SpeedTest(
        images={"lenet5": 20, "resnet18": 4},
        submodels={"lenet5": 2, "resnet18": 2},
        steps=2,
        batches={"lenet5": 2, "resnet18": 1},
        rounds=1,
        sizes=(1, 2),
        counts=(10, 20),
        lengths=(1, 2),
        memory_images=(10,),
    ),
    "quick": _SPEED_QUICK,
    "paper": _SPEED_QUICK,
}
