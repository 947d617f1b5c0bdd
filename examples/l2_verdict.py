"""An L2 verdict: a perturbation's Euclidean norm is limited, not each pixel's change."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import randomized_defense_bench as rdb

pixels, targets = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(targets)
test = slice(1500, 1600)

torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for batch in torch.randint(1500, (300, 50)):
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
    optimizer.step()

for eps in (0.25, 0.5, 1.0):
    verdict = rdb.judge(
        [network], images[test], labels[test], rdb.ThreatModel("L2", eps), budget="smoke"
    )
    print(verdict)

# Judged are perturbed images, which come along.
distances = (verdict.images - images[test]).flatten(1).norm(dim=1)
print(f"largest perturbation: {distances.max():.3f}")
