#!/usr/bin/env bash
# torch 2.14.1: dropout that is kept on in a transformer (`net.eval()`, then `train()` on its dropout
# layers, as Monte Carlo dropout is switched on) works with gradients and is left out without them: the
# fast path of TransformerEncoderLayer asks for the mode of the layer alone. An attack follows a random
# network, and what is scored under no_grad is another, a fixed one. Without the fast path both are random.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat > "$scratch/dropout.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.5, batch_first=True)
network = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(8 * 32, 10)).eval()
for part in network.modules():
    if isinstance(part, nn.Dropout):
        part.train()
tokens = torch.rand(64, 8, 32)


def passes_differ(gradients: bool) -> bool:
    with torch.set_grad_enabled(gradients):
        first, second = network(tokens), network(tokens)
    return not torch.equal(first, second)


found = {}
for fast in (True, False):
    torch.backends.mha.set_fastpath_enabled(fast)
    for gradients in (True, False):
        found[fast, gradients] = passes_differ(gradients)
        print(
            f"torch {version('torch')}, fast path {'on' if fast else 'off'}, "
            f"{'with' if gradients else 'without'} gradients: two passes differ: {found[fast, gradients]}"
        )
sys.exit([setting for setting, random in found.items() if not random] != [(True, False)])
PYTHON

python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy
echo "expected: False only with the fast path on and without gradients"
"$scratch/venv/bin/python" "$scratch/dropout.py"
