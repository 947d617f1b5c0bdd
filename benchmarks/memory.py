"""`python -m benchmarks.memory N IMAGES DEVICE`: the peak memory of one attack, in GiB.

A process of its own, since a process's peak never falls.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

from attacks import ThreatModel
from benchmarks.evaluation import evaluate
from defenses.architectures import lenet5
from defenses.training import initialise


def main(submodels: int, images: int, device: torch.device) -> float:
    """Attack random images on an untrained population, score the result, return the peak."""
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
    return _peak_resident() / 2**30


def _peak_resident() -> int:
    """The most memory this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux that remembers the process that started this one.
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return 1024 * int(found[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), torch.device(sys.argv[3])))
