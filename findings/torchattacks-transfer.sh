#!/usr/bin/env bash
# torchattacks 3.5.1: AutoAttack returns the clean image where it does not fool the network that it is
# run on, PGD its last iterate. On that network AutoAttack is the stronger of the two; on another network
# its images look the more harmless, by as many points as there are clean ones among them.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check \
    torchattacks==3.5.1 torch==2.14.1 torchvision==0.29.1 scikit-learn==1.9.1

"$scratch/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
import torchattacks
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
labels = torch.tensor(digits.target)
EPS = 0.2


def trained(seed, adversarial):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        batch = images[:1200]
        if adversarial:
            batch = torchattacks.FFGSM(network, eps=0.15, alpha=0.19)(batch, labels[:1200])
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch), labels[:1200]).backward()
        optimizer.step()
    return network.eval()


def accuracy(network, perturbed):
    return round(float((network(perturbed).argmax(1) == labels[1200:]).float().mean()), 3)


surrogate, target = trained(0, adversarial=True), trained(1, adversarial=False)
clean = images[1200:]
pgd = torchattacks.PGD(surrogate, eps=EPS, alpha=EPS / 4, steps=10)(clean, labels[1200:])
auto = torchattacks.AutoAttack(surrogate, eps=EPS, seed=0)(clean, labels[1200:])
at_home = accuracy(surrogate, pgd), accuracy(surrogate, auto)
transferred = accuracy(target, pgd), accuracy(target, auto)
unperturbed = (auto == clean).flatten(1).all(1).float().mean()

print(*(f"{name} {version(name)}" for name in ("torchattacks", "torch")), sep=", ")
print("expected: the attack that is stronger on the surrogate is not much weaker on the target")
print(f"seen:     accuracy of the surrogate {at_home}, of the target {transferred} (PGD, AutoAttack);")
print(f"          {unperturbed:.1%} of AutoAttack's images are the clean ones")
stronger, weaker = at_home[1] < at_home[0], transferred[1] > transferred[0] + 0.05
sys.exit(not (stronger and weaker and unperturbed > 0.1))
PYTHON
