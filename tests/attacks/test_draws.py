"""Draws in one pass: as many different ones as one after another."""

import random

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks.draws import KnownDraw, in_blocks
from randomized_defense_bench.attacks.seeding import global_seed
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.defenses.noise import Noise
from randomized_defense_bench.defenses.population import Population
from randomized_defense_bench.defenses.resize_pad import ResizePad
from randomized_defense_bench.defenses.surrogate import Plan, Surrogate
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Shifted(nn.Module):
    """What it is shown, moved by a number that it draws in each pass."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, images):
        return images.flatten(1) + self.draw()


own = np.random.default_rng(0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randn(()),
        lambda: torch.randn(()).item(),
        lambda: F.dropout(torch.ones(64)).mean(),
        random.random,
        lambda: np.random.rand() + torch.randn(()),
        lambda: own.random() + torch.randn(()),
        lambda: 9.0 * (random.random() < 0.1) + 1e-3 * torch.randn(()),
        lambda: 9.0 * (np.random.rand() < 0.1) + 1e-3 * torch.randn(()),
    ],
)
def test_each_block_has_a_draw_of_its_own_whoever_draws(draw):
    # A rare coin might not come up in forty passes.
    with global_seed(0, torch.device("cpu")):
        answers = in_blocks(Shifted(draw), torch.zeros(40, 2, 1, 1, 3))
    assert answers.shape == (40, 2, 3)
    assert (answers == answers[:, :1, :1]).all()
    shifts = answers[:, 0, 0]
    if draw is not random.random:
        # No two passes share a part of what they draw: both sides of a coin turn up.
        assert len(shifts.unique()) > 10
    assert shifts.std() > 0.03


class Keeping(Shifted):
    """It keeps what it draws, and adds it to what it kept."""

    kept = torch.zeros(())

    def forward(self, images):
        self.kept = 0.5 * self.kept + self.draw()
        return images.flatten(1) + self.kept


def test_a_network_that_keeps_what_it_draws_is_left_with_tensors_of_use():
    member = Keeping(lambda: torch.randn(()))
    answers = in_blocks(member, torch.zeros(40, 2, 1, 1, 3))
    assert torch.equal(answers[-1, 0, 0], member.kept)
    assert len(answers[:, 0, 0].unique()) == 40


@pytest.mark.parametrize("together", [True, False])
def test_a_known_draw_is_the_same_for_every_image_in_every_batch(together):
    def noise():
        return torch.randn(()) if together else torch.randn(()) + random.random()

    images = torch.zeros(6, 1, 1, 3)
    drawn = [KnownDraw(Shifted(noise), seed) for seed in (0, 0, 1)]
    first, again, other = (draw(images) for draw in drawn)
    assert torch.equal(first, again)
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(first[:2], drawn[0](images[3:5]))
    assert not torch.equal(first, other)


def test_a_network_that_draws_nothing_answers_as_ever():
    blocks = torch.rand(5, 2, 1, 1, 3)
    answers = in_blocks(Shifted(lambda: 0.0), blocks)
    assert torch.equal(answers, blocks.flatten(2))


def test_resize_pad_shows_the_nearest_pixels():
    images = torch.rand(4, 1, 32, 32)
    shown = []
    member = ResizePad(nn.Identity())
    for _ in range(60):
        shown.append(member(images))
    sizes = set()
    for padded in shown:
        rows, columns = (padded[0, 0].sum(dim).nonzero().flatten() for dim in (1, 0))
        # Pixels drawn at random are never 0, so that the frame of zeros is known.
        (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
        size = bottom - top + 1
        sizes.add(size)
        assert right - left + 1 == size
        small = F.interpolate(images, (size, size), mode="nearest")
        frame = (left, 31 - right, top, 31 - bottom)
        assert torch.equal(padded, F.pad(small, frame))
    assert sizes == {29, 30, 31, 32}


class LooksInside(Noise):
    """It calls its network's layers one by one."""

    def forward(self, images):
        for layer in self.network:
            images = layer(images)
        return images + self.sigma * torch.randn_like(images)


@pytest.mark.parametrize("kind", [Noise, ResizePad, LooksInside])
def test_around_a_network_that_is_folded_a_surrogate_draws_as_its_member_does(kind):
    torch.manual_seed(0)
    member = kind(lenet5()).eval()
    if kind is not ResizePad:
        member.sigma.fill_(0.3)
    images = torch.rand(3, 1, 32, 32)
    surrogate = Surrogate(
        Population([member], draws=4), Plan(False, 100, "float32"), probe=images[:2]
    )
    assert (surrogate.submodels[0] is member) == (kind is LooksInside)
    answers = []
    for network in (member, surrogate.submodels[0]):
        torch.manual_seed(1)
        answers.append(network(images).detach())
    assert torch.allclose(*answers, atol=1e-4)
    assert not torch.allclose(answers[0], member(images), atol=1e-3)


def test_a_pass_that_is_recomputed_for_its_gradient_draws_one_after_another():
    layer = nn.Linear(3, 4)

    class Recomputed(nn.Module):
        def forward(self, images):
            def block(features):
                return layer(features + torch.randn_like(features))

            return checkpoint(block, images.flatten(1), use_reentrant=False)

    leaf = torch.rand(5, 2, 1, 1, 3, requires_grad=True)
    with global_seed(0, torch.device("cpu")):
        answers = in_blocks(Recomputed(), leaf)
        (gradient,) = torch.autograd.grad(answers.sum(), leaf)
    assert torch.allclose(gradient.flatten(2), layer.weight.sum(0).expand(5, 2, 3))
    assert not torch.equal(answers[0] - answers[1], torch.zeros_like(answers[0]))
