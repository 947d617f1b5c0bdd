"""My ensemble: three networks, one of which answers each query, drawn at random."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import randomized_defense_bench as rdb

pixels, targets = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(targets)
test = slice(1500, 1600)


def trained(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(5):
        for batch in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network


verdict = rdb.judge(
    [trained(seed) for seed in range(3)],
    images[test],
    labels[test],
    rdb.ThreatModel("Linf", 0.1),
    probabilities=[0.5, 0.25, 0.25],
    budget="smoke",
)
print(verdict)
