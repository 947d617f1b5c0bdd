#!/usr/bin/env bash
# pyautoattack 0.2.0: the version for random defenses counts an image as robust if it was answered
# correctly once before and once after each of two attacks. A defense that errs in 10% of its queries,
# and that no perturbation within eps can hurt, is reported at 0.9 ** 3.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check \
    pyautoattack==0.2.0 torch==2.14.1 numpy==2.4.6

"$scratch/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from pyautoattack import AutoAttack
from torch import nn


class ErrsInOneQueryOfTen(nn.Module):
    """Bright images are of class 0; the answer is reversed at random."""

    def forward(self, images):
        brightness = images.flatten(1).mean(1) - 0.5
        sign = 1 - 2 * (torch.rand(len(images)) < 0.1).float()
        return torch.stack([sign * brightness, *[0 * brightness] * 9], dim=1)


def accuracy(answers):
    return float((answers == labels).float().mean())


torch.manual_seed(0)
torch.set_num_threads(1)
network = ErrsInOneQueryOfTen().eval()
images = 0.8 + 0.2 * torch.rand(1000, 1, 4, 4)
labels = torch.zeros(1000, dtype=torch.int64)
attack = AutoAttack(network, norm="Linf", eps=0.1, version="rand", seed=0)
perturbed, answers = attack.run_standard_evaluation(images, labels)
reported, again = accuracy(answers), accuracy(network(perturbed).argmax(1))

print(*(f"{name} {version(name)}" for name in ("pyautoattack", "torch")), sep=", ")
print("expected: the probability that a perturbed image is answered correctly, 0.9")
print(f"seen:     {reported:.3f} (0.9 ** 3 = {0.9**3:.3f}); asked once more: {again:.3f}")
sys.exit(not (0.69 < reported < 0.77 and 0.87 < again < 0.93))
PYTHON
