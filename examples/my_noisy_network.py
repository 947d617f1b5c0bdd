"""My noisy network: it adds Gaussian noise to every image that it classifies."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import randomized_defense_bench as rdb

pixels, targets = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(targets)
test = slice(1500, 1550)


class Noisy(nn.Module):
    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.network(x + self.sigma * torch.randn_like(x))


torch.manual_seed(0)
network = Noisy(sigma=0.2)
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(10):
    for batch in torch.randperm(1500).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()

# Attacks follow the mean over 8 passes with fresh noise; 8 others are scored.
verdict = rdb.judge(
    [network], images[test], labels[test], rdb.ThreatModel("Linf", 0.1), draws=8, budget="smoke"
)
# Claimed: one draw is attacked, another answers. Worst case: all draws are attacked.
print(verdict)
