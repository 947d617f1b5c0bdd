#!/usr/bin/env bash
# secml-torch 1.5: PGD with the gradient of EoTGradientMixin, put together as its tutorial on adaptive
# attacks does, walks down the loss instead of up. Every perturbation is worse than none, so the clean
# images come back and any defense looks as robust as it is accurate.
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
from secmlt.adv.evasion.modular_attacks.eot_gradient import EoTGradientMixin
from secmlt.adv.evasion.pgd import PGDNative
from secmlt.metrics.classification import Accuracy
from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class PGDWithEoT(EoTGradientMixin, PGDNative):
    pass


torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
images = torch.rand(100, 1, 8, 8)
data = DataLoader(TensorDataset(images, network(images).argmax(1)), batch_size=100)
classifier = BasePyTorchClassifier(network)
options = {"perturbation_model": "linf", "epsilon": 0.2, "num_steps": 20, "step_size": 0.05}
options["random_start"] = False
perturbed = {
    "PGD": PGDNative(**options)(classifier, data),
    "PGD with EoT": PGDWithEoT(eot_samples=100, **options)(classifier, data),
}
accuracies = {name: float(Accuracy()(classifier, data)) for name, data in perturbed.items()}
same = torch.equal(torch.cat([batch for batch, _ in perturbed["PGD with EoT"]]), images)

print(*(f"{name} {version(name)}" for name in ("secml-torch", "torch")), sep=", ")
print("expected: a deterministic linear network is about as accurate under either attack")
print(f"seen:     {accuracies}; images returned with EoT are the clean ones: {same}")
sys.exit(not (accuracies["PGD"] < 0.2 and accuracies["PGD with EoT"] == 1 and same))
PYTHON
