#!/usr/bin/env bash
# torchattacks 3.5.1: an attack puts all of the network into evaluation mode, and afterwards does not
# undo it part by part. Dropout that is the defense (Monte Carlo dropout) is off while it is attacked,
# under EOT, too, and stays off for whatever is evaluated next.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check \
    torchattacks==3.5.1 torch==2.14.1 torchvision==0.29.1

"$scratch/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
import torchattacks
from torch import nn


def is_random(network):
    return not torch.equal(network(images), network(images))


torch.manual_seed(0)
dropout = nn.Dropout(0.5)
network = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), dropout, nn.Linear(64, 10)
).eval()
dropout.train()
images, labels = torch.rand(10, 1, 8, 8), torch.randint(10, (10,))
modes = []
before = is_random(network)
dropout.register_forward_hook(lambda layer, *_: modes.append(layer.training))
torchattacks.EOTPGD(network, eps=0.1, steps=3, eot_iter=4)(images, labels)
meanwhile, after = any(modes), is_random(network)

print(*(f"{name} {version(name)}" for name in ("torchattacks", "torch")), sep=", ")
print("expected: dropout is on before, during and after the attack")
print(f"seen:     {before} before, {meanwhile} during, {after} after")
sys.exit(not (before and not meanwhile and not after))
PYTHON
