#!/usr/bin/env bash
# torch 2.14.1: bfloat16 on a CPU without instructions for it is not as slow as float32 there, but
# many times slower, without a word. Convolutions under autocast fall back to oneDNN's reference
# kernels; a recipe that asks for bfloat16 on any machine trains for days there. oneDNN's own switch
# plays such a CPU here.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy

ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 "$scratch/venv/bin/python" - <<'PYTHON'
import sys
import time
from importlib.metadata import version

import torch
from torch import nn

layer = nn.Conv2d(64, 64, 3, padding=1)
images = torch.rand(16, 64, 16, 16)


def seconds(enabled):
    best = float("inf")
    for _ in range(4):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            layer(images).float().sum().backward()
        best = min(best, time.process_time() - start)
    return best


ratio = seconds(True) / seconds(False)
print(f"torch {version('torch')}")
print("expected: bfloat16 takes about as long as float32 where it cannot be faster, or warns")
print(f"seen:     {ratio:.1f} times as long")
sys.exit(ratio < 2)
PYTHON
