#!/usr/bin/env bash
# torch 2.14.1: average poolings that print alike compute different things. AvgPool2d's repr names
# the window, the stride and the padding, not ceil_mode, count_include_pad or divisor_override.
# Whoever tells networks apart by what they print, to stack or fuse them or to name a result, takes
# one for the other. Max pooling prints its ceil_mode.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy

"$scratch/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from torch import nn

images = torch.arange(36.0).view(1, 1, 6, 6)
plain = nn.AvgPool2d(3, 2, 1)
kinds = ({"ceil_mode": True}, {"count_include_pad": False}, {"divisor_override": 1})
seen = {}
for kind in kinds:
    other = nn.AvgPool2d(3, 2, 1, **kind)
    answers = plain(images), other(images)
    alike = answers[0].shape == answers[1].shape and torch.equal(*answers)
    seen[str(kind)] = repr(other) == repr(plain), alike

print(f"torch {version('torch')}")
print("expected: layers that answer otherwise print otherwise")
for kind, (prints, answers) in seen.items():
    print(f"seen:     {kind}: prints alike: {prints}, answers alike: {answers}")
sys.exit(not all(prints and not answers for prints, answers in seen.values()))
PYTHON
