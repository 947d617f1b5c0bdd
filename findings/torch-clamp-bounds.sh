#!/usr/bin/env bash
# torch 2.12.0 and 2.14.1: the gradient of clamp() at its bounds was 1 and is 0. A network that clamps
# its input to [0, 1] has no gradient in black and white pixels any more, so that attacks leave them:
# FGSM on black images, which fools the network with the older torch, returns the clean images with
# the newer. The same weights and the same attack, and robust accuracy rises from 0% to 100%.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat > "$scratch/attack.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
import torchattacks
from torch import nn


class Clamped(nn.Module):
    """Class 1 where the mean pixel is above 0.05, after a clamp that changes nothing in [0, 1]."""

    def forward(self, images):
        mean = images.clamp(0, 1).mean((1, 2, 3)) - 0.05
        return torch.stack([-mean, mean], 1)


network, images, labels = Clamped().eval(), torch.zeros(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
accuracy = {}
for name, attack in (
    ("FGSM", torchattacks.FGSM(network, eps=0.1)),
    ("PGD without a random start", torchattacks.PGD(network, eps=0.1, random_start=False)),
):
    answers = network(attack(images, labels)).argmax(1)
    accuracy[name] = float((answers == labels).float().mean())
print(f"torch {version('torch')}, torchattacks {version('torchattacks')}: accuracy {accuracy}")
sys.exit(set(accuracy.values()) != {float(sys.argv[1])})
PYTHON

echo "expected: the same accuracy with both"
for pair in "2.12.0 0" "2.14.1 1"; do
    read -r torch accuracy <<< "$pair"
    python3 -m venv "$scratch/$torch"
    "$scratch/$torch/bin/pip" install --quiet --disable-pip-version-check "torch==$torch" \
        torchvision torchattacks==3.5.1 numpy
    "$scratch/$torch/bin/python" "$scratch/attack.py" "$accuracy"
    rm -rf "${scratch:?}/$torch"
done
