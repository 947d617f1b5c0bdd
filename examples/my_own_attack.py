"""My own attack: among the suite's, checked like them, and in the worst case if it is stronger."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import randomized_defense_bench as rdb

pixels, targets = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(targets)
test = slice(1500, 1600)


@rdb.register_attack("mean-gradient", kind="population", norms=("Linf",))
def mean_gradient(model, images, labels, *, threat_model, steps=10):
    """Follow the gradient that the members have on average, from the image itself."""
    x = images
    for _ in range(steps):
        x = x.detach().requires_grad_()
        logits = model.logits(x)  # (n * draws, N, K)
        loss = sum(nn.functional.cross_entropy(one, labels) for one in logits)
        (gradient,) = torch.autograd.grad(loss, x)
        x = threat_model.project(x + 2 * threat_model.eps / steps * gradient.sign(), images)
    return x.detach()


torch.manual_seed(0)
modules = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2)]
optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=0.01)
for batch in torch.randint(1500, (300, 50)):
    optimizer.zero_grad()
    for module in modules:
        nn.functional.cross_entropy(module(images[batch]), labels[batch]).backward()
    optimizer.step()

verdict = rdb.judge(
    modules, images[test], labels[test], rdb.ThreatModel("Linf", 0.1), budget="smoke"
)
print("my attack:", verdict.row.score("mean-gradient"))
print(verdict)
