#!/usr/bin/env bash
# ray 2.60.0, torch 2.14.1: `num_cpus` is documented as a resource for scheduling, yet it sets
# OMP_NUM_THREADS of the process, 1 by default, and with it the order of torch's sums: the same
# seeded gradient has other bits in a task than in the driver. A later task of more CPUs that is
# given the same process reads its own OMP_NUM_THREADS, and still computes with the first one's
# threads, since torch has read the variable once. Only torch.set_num_threads in the task holds.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy ray==2.60.0

unset OMP_NUM_THREADS
"$scratch/venv/bin/python" - <<'PYTHON'
import hashlib
import os
import sys

import ray
import torch
from torch import nn


def gradient():
    """What the process is told, what torch does, and the bits of a seeded gradient."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 10)
    network = nn.Sequential(*layers)
    network(torch.rand(64, 3, 32, 32)).square().sum().backward()
    bits = b"".join(weight.grad.numpy().tobytes() for weight in network.parameters())
    told = os.environ.get("OMP_NUM_THREADS")
    return told, torch.get_num_threads(), hashlib.sha256(bits).hexdigest()[:12]


def told_in_task():
    torch.set_num_threads(2)
    return gradient()


torch.set_num_threads(2)
own = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 150 * 2**20}
ray.init("local", log_to_driver=False, **own)
driver = gradient()
first = ray.get(ray.remote(gradient).remote())
second = ray.get(ray.remote(num_cpus=2)(gradient).remote())
cured = ray.get(ray.remote(num_cpus=2)(told_in_task).remote())
print(f"ray {ray.__version__}, torch {torch.__version__}")
print("expected: OMP_NUM_THREADS, torch's threads and the gradient's bits as in the driver")
seen = {"driver": driver, "task": first, "task of 2 CPUs": second, "set_num_threads(2)": cured}
for where, (told, threads, bits) in seen.items():
    print(f"seen:     {where}: OMP_NUM_THREADS {told}, {threads} threads, bits {bits}")
as_described = first[2] != driver[2] == cured[2] and second[:2] == ("2", 1)
sys.exit(not as_described)
PYTHON
