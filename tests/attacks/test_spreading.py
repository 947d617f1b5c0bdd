import pytest
import torch
from randomized_defense_bench.attacks.spreading import SPREAD, SpreadPooling
from torch import nn
from torch.nn import functional as F

CORNER = torch.tensor([[4.0, 1.0], [2.0, 3.0]]).view(1, 1, 2, 2)


def pooled(pool, images):
    """What a pooling answers, and its gradient, truly and inside `SpreadPooling`."""
    results = []
    for inside in (False, True):
        leaf = images.clone().requires_grad_()
        if inside:
            with SpreadPooling():
                answer = pool(leaf)
        else:
            answer = pool(leaf)
        answer.sum().backward()
        results.append((answer.detach(), leaf.grad))
    return results


def test_the_gradient_reaches_all_of_a_window_and_the_answer_stays():
    (answer, true), (same, spread) = pooled(nn.MaxPool2d(2), CORNER)
    assert answer.item() == same.item() == 4
    assert true.flatten().tolist() == [1, 0, 0, 0]
    share = SPREAD / 4
    assert spread.flatten().tolist() == pytest.approx([1 + share, share, share, share])


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        lambda images: F.max_pool2d(images, (2, 1)),
        lambda images: torch.max_pool2d(images, 2, 1),
        nn.MaxPool2d(2, dilation=2),
        lambda images: F.max_pool2d(images, 2, return_indices=True)[0],
        torch.vmap(nn.MaxPool2d(2)),
    ],
)
def test_other_poolings_answer_as_they_did(pool):
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    (answer, true), (same, spread) = pooled(pool, images)
    assert torch.equal(answer, same)
    assert spread.isfinite().all()
    assert spread.sum() >= true.sum() - 1e-4
