"""My checkpoint: weights from a file, judged; the records are kept and make a page."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

import randomized_defense_bench as rdb

pixels, targets = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(targets)
test = slice(1500, 1600)


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


# The file, if you have none.
torch.manual_seed(0)
network = build()
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for batch in torch.randint(1500, (300, 50)):
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
    optimizer.step()
Path("mine").mkdir(exist_ok=True)
save_file(network.state_dict(), "mine/mine.safetensors")

network = build()
network.load_state_dict(load_file("mine/mine.safetensors"))
verdict = rdb.judge(
    [network],
    images[test],
    labels[test],
    rdb.ThreatModel("Linf", 0.1),
    budget="smoke",
    name="mine",
    results=Path("mine/results"),
)
print(verdict)
print("python -m randomized_defense_bench.leaderboard --results mine/results makes the page")
