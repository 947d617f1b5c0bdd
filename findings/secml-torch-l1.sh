#!/usr/bin/env bash
# secml-torch 1.5: two places take one number for a whole batch where each image needs its own. PGD in
# L1 moves, at every step, only the image with the largest gradient in the batch; MinDistanceEnsemble
# compares distances with a norm over the batch, which is zero at first, and so keeps the clean images.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check \
    secml-torch==1.5 torch==2.14.1 torchvision==0.29.1

"$scratch/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from secmlt.adv.evasion.aggregators.ensemble import MinDistanceEnsemble
from secmlt.adv.evasion.pgd import PGDNative
from secmlt.metrics.classification import Accuracy
from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)).eval()
# Grey images lie on the boundary of all classes.
network[1].bias.data = -0.5 * network[1].weight.sum(1)
images = 0.4 + 0.2 * torch.rand(100, 1, 4, 4)
labels = network(images).argmax(1)
classifier = BasePyTorchClassifier(network)
attack = PGDNative("l1", epsilon=2.0, num_steps=20, step_size=0.2, random_start=False)
perturbed = {
    size: attack(classifier, DataLoader(TensorDataset(images, labels), batch_size=size))
    for size in (1, 100)
}
accuracies = {size: float(Accuracy()(classifier, data)) for size, data in perturbed.items()}
alone = TensorDataset(torch.cat([batch for batch, _ in perturbed[1]]), labels)
ensemble = MinDistanceEnsemble("l1")(
    classifier,
    DataLoader(TensorDataset(images, labels), batch_size=100),
    [DataLoader(alone, batch_size=100)],
)
chosen = float(Accuracy()(classifier, ensemble))

print(*(f"{name} {version(name)}" for name in ("secml-torch", "torch")), sep=", ")
print("expected: the same accuracy whatever the batch size, and under an ensemble of one attack")
print(f"seen:     {accuracies} by batch size, {chosen} under the ensemble of the attack at size 1")
sys.exit(not (accuracies[1] < 0.2 and accuracies[100] > 0.8 and chosen == 1))
PYTHON
