"""Between the epochs of my training: robust accuracy after each, and a verdict at the end."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import randomized_defense_bench as rdb

pixels, targets = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(targets)
watched, test = slice(1400, 1500), slice(1500, 1600)
threat_model = rdb.ThreatModel("Linf", 0.1)

torch.manual_seed(0)
network = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
)
optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
for epoch in range(1, 6):
    network.train()
    for batch in torch.randperm(1400).split(50):
        # Adversarial training with one step of gradient ascent.
        x, y = images[batch].requires_grad_(), labels[batch]
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(x), y), x)
        x = (x + threat_model.eps * gradient.sign()).clamp(0, 1).detach()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    network.eval()
    population = rdb.Population([network])
    result = rdb.evaluate(population, images[watched], labels[watched], "pgd", threat_model)
    print(f"epoch {epoch}: {result.score}")

verdict = rdb.judge([network], images[test], labels[test], threat_model, budget="smoke")
print(verdict)
