"""What is refused, and what is odd, before anything is spent."""

import copy
import functools
import itertools
import os
import random
import re
import time
import warnings
from collections import deque
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.data_doubts import (
    _copies,
    _order_in_doubt,
    _sample,
    _shifted,
    _unlabelled,
)
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.benchmarks.preflight import preflight
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.defenses import Population, load_network
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from stand_ins import Chance, linear
from torch import nn

IMAGES = torch.rand(12, 1, 1, 2, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
LABELS = torch.zeros(12, dtype=torch.int64)
LINF = ThreatModel("Linf", 0.1)


class Changed(nn.Module):
    """A network's answers, and what becomes of them."""

    def __init__(self, change, network=None):
        super().__init__()
        self.network, self.change = network or linear(1.0, 1.0), change

    def forward(self, images):
        return self.change(self.network, images)


def looked_at(*members, images=IMAGES, labels=LABELS, batch_size=5, **law):
    return preflight(Population(members, **law), images, labels, batch_size=batch_size)


@pytest.mark.parametrize("shared", [False, True])
def test_a_random_network_without_draws_is_refused_by_name(shared):
    members = [linear(1.0, 1.0), Chance(shared=shared)]
    with pytest.raises(ValueError, match=r"submodel 1 \(Chance\) gives another answer.*draws=16"):
        looked_at(*members)
    assert looked_at(*members, draws=16).blind == ()


@pytest.mark.parametrize("toss", [random.random, np.random.rand, lambda: float(torch.rand(()))])
def test_a_rare_coin_is_seen_whoever_tosses_it(toss):
    """As one that shows a network the negative of an image in one pass of eight."""
    member = Changed(lambda net, x: net(1 - x if toss() < 1 / 8 else x))
    with pytest.raises(ValueError, match="gives another answer in every pass"):
        looked_at(member)
    looked_at(member, draws=16)


def test_ties_that_tiny_noise_breaks_are_random():
    member = Changed(lambda net, x: net(x).round() + 1e-6 * torch.rand(len(x), 4))
    with pytest.raises(ValueError, match="gives another answer in every pass"):
        looked_at(member)
    looked_at(member, draws=16)


def test_rounding_that_differs_from_pass_to_pass_is_not_random():
    passes = itertools.count()
    member = Changed(lambda net, x: net(x) + 1e-6 * (next(passes) % 2))
    looked_at(member)
    with pytest.warns(UserWarning, match="no randomness was seen"):
        looked_at(member, draws=16)


class Leaky(nn.Module):
    """A membrane that charges from pass to pass, in whatever holds it."""

    def __init__(self, *, reset):
        super().__init__()
        self.network, self.membrane, self.reset = linear(1.0, 1.0), 0.0, reset

    def forward(self, images):
        self.membrane = self.network(images) + (0 if self.reset else 0.9 * self.membrane)
        return self.membrane


@pytest.mark.parametrize("draws", [1, 16])
@pytest.mark.parametrize(
    ("before", "words"),
    [
        (
            0.0,
            r"keeps state from pass to pass \(Leaky.membrane\).*reset it at the start of forward",
        ),
        (torch.zeros(9, 4), "if membrane is of an earlier pass, reset it in forward"),
    ],
)
def test_state_that_is_kept_from_pass_to_pass_is_refused_and_left_as_it_was(draws, before, words):
    member = Leaky(reset=False)
    member.membrane = before
    with pytest.raises(ValueError, match=words):
        looked_at(member, draws=draws)
    assert member.membrane is before
    looked_at(Leaky(reset=True))


class Stateful(nn.Module):
    """It adds to what it holds in every pass, or takes turns; so many images were seen before."""

    def __init__(self, seen, step):
        super().__init__()
        self.network, self.seen, self.step = linear(1.0, 1.0), seen, step

    def forward(self, images):
        return self.network(images) * (1 + self.step(self.seen, images))


def test_a_container_that_holds_itself_is_looked_at_once():
    member = Stateful({}, lambda seen, images: 0)
    member.seen["self"] = member.seen
    looked_at(member)


def appends(seen, images):
    seen.append(images)
    return len(seen)


def counts(seen, images):
    seen["passes"] = seen.get("passes", 0) + 1
    return seen["passes"] % 2


@pytest.mark.parametrize("draws", [1, 16])
@pytest.mark.parametrize(
    ("seen", "step"),
    [
        ([], appends),
        (deque(maxlen=2), lambda seen, images: appends(seen, images) % 2),
        ({}, counts),
        ({"inside": {}}, lambda seen, images: counts(seen["inside"], images)),
        (itertools.cycle(range(2)), lambda seen, images: next(seen)),
        (itertools.cycle(range(11)), lambda seen, images: next(seen)),
    ],
)
def test_state_in_containers_is_refused_and_left_as_it_was(draws, seen, step):
    before = str(seen)
    with pytest.raises(ValueError, match=r"from pass to pass \(Stateful.seen\)"):
        looked_at(Stateful(seen, step), draws=draws)
    assert str(seen) == before


class FirstBatch(nn.Module):
    """Its normaliser comes from the first images that it answers, and from none after them."""

    def __init__(self, keep):
        super().__init__()
        self.network, self.keep, self.ready = linear(1.0, 1.0), keep, False
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("lazy", None)
        self.found, self.scale = None, nn.Parameter(torch.ones(()))

    def forward(self, images):
        if not self.ready:
            self.keep(self, images.mean())
            self.ready = True
        shift = self.mean + sum(one for one in (self.lazy, self.found) if one is not None)
        return self.network(images) * self.scale - shift


@pytest.mark.parametrize(
    "keep",
    [
        lambda net, mean: net.mean.copy_(mean),
        lambda net, mean: net.mean.data.copy_(mean),
        lambda net, mean: net.scale.data.copy_(mean),
        lambda net, mean: setattr(net, "lazy", mean),
        lambda net, mean: setattr(net, "found", mean),
        lambda net, mean: setattr(net, "found", float(mean)),
    ],
)
def test_what_the_first_images_set_is_refused_and_left_unset(keep):
    member = FirstBatch(keep)
    before = {name: value.clone() for name, value in member.state_dict().items()}
    with pytest.raises(ValueError, match=r"first images that it answers \(.*FirstBatch\.ready"):
        looked_at(member)
    assert member.ready is False
    assert member.found is None
    assert all(torch.equal(value, before[name]) for name, value in member.state_dict().items())
    with torch.no_grad():
        member(IMAGES)
    looked_at(member)


class Switching(nn.Module):
    """It changes weights in `eval()`, as those do that keep an average."""

    def __init__(self):
        super().__init__()
        self.network = linear(1.0, 1.0)

    def train(self, mode=True):
        self.network = linear(1.0, 1.0) if mode else linear(2.0, 0.0)
        return super().train(mode)

    def forward(self, images):
        return self.network(images)


class AlwaysOn(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


def test_modes_that_a_network_defines_itself_are_left_to_it():
    for member in (Switching(), nn.Sequential(linear(1.0, 1.0), AlwaysOn())):
        kind = type(member if isinstance(member, Switching) else member[1]).__name__
        with pytest.raises(ValueError, match=rf"{kind} is in training mode and has.*call .eval"):
            looked_at(member, draws=16)
        looked_at(member.eval(), draws=16)


@pytest.mark.parametrize(
    ("seed", "whose"),
    [(torch.manual_seed, "torch"), (random.seed, "Python"), (np.random.seed, "NumPy")],
)
def test_a_network_that_seeds_a_global_generator_is_refused(seed, whose):
    """As those do that draw the same projection in every pass; attacks would not be random."""

    def seeded(net, images):
        seed(0)
        return net(images)

    with pytest.raises(ValueError, match=f"seeds {whose}'s global generator"):
        looked_at(Changed(seeded))


class Observer(nn.Module):
    """It notes a range as torch's fused observers do, unseen by versions, and rounds to it."""

    def __init__(self):
        super().__init__()
        self.network = linear(1.0, 1.0)
        self.register_buffer("largest", torch.tensor(0.5))

    def forward(self, images):
        self.largest.data += 0.01
        return self.network(images) / self.largest


@pytest.mark.parametrize("draws", [1, 16])
def test_what_observers_note_is_state_and_left_as_it_was(draws):
    member = Observer()
    with pytest.raises(ValueError, match=r"from pass to pass \(Observer.largest\)"):
        looked_at(member, draws=draws)
    assert member.largest.item() == 0.5


def test_sparse_weights_are_refused():
    member = linear(1.0, 1.0)
    member.register_buffer("mask", torch.eye(2).to_sparse())
    with pytest.raises(ValueError, match=r"0.mask is sparse, .*to_dense\(\) it"):
        looked_at(member)


def test_a_random_network_that_was_changed_is_tried_anew():
    """Draws of torch's come in one vectorized pass, where NumPy's would be alike."""
    member = Changed(lambda net, x: net(x) + torch.randn(len(x), 4))
    looked_at(member, draws=16)
    population = Population([member], draws=16)
    population.logits(IMAGES[:1])
    member.change = lambda net, x: net(x) + torch.from_numpy(np.random.randn(len(x), 4)).float()
    looked_at(member, draws=16)
    with torch.no_grad():
        assert len(population.logits(IMAGES[:1]).unique(dim=0)) == 16


@torch.enable_grad()
def adapted(net, images, *, unfreeze):
    net[1].weight.requires_grad_(unfreeze)
    entropy = net(images).softmax(1).square().sum()
    entropy.backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    return net(images)


@pytest.mark.parametrize(
    ("unfreeze", "words"), [(True, "changes its weights as it"), (False, "differentiates as it")]
)
def test_adaptation_at_test_time_is_refused_and_weights_are_as_they_were(unfreeze, words):
    member = Changed(functools.partial(adapted, unfreeze=unfreeze))
    before = member.network[1].weight.clone()
    with pytest.raises(ValueError, match=words):
        looked_at(member)
    (weight,) = member.parameters()
    assert torch.equal(weight, before)
    assert weight.grad is None
    assert weight.requires_grad


def test_draws_of_a_deterministic_network_are_odd():
    dropout = nn.Sequential(linear(1.0, 1.0), nn.Dropout(0.5)).train()
    for member in (linear(1.0, 1.0), dropout):
        with pytest.warns(UserWarning, match=r"draws=16, but no randomness was seen .*train\(\)"):
            looked_at(member, draws=16)


GREY = torch.linspace(0.5, 0.51, 12).view(12, 1, 1, 1).repeat(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (lambda x: x[:, 0] == GREY[5, 0, 0, 0], "gives another answer in every pass"),
        (lambda x: x[:, 0] > 0.55, "gives another answer in every pass"),
        # Nearer to where an attack goes than any random corner.
        (lambda x: x.mean(1) < 0.42, "in a second pass.*draws=16"),
    ],
)
@pytest.mark.parametrize("draws", [1, 16])
def test_networks_that_are_random_at_some_images_alone_need_draws(chosen, words, draws):
    """As those that answer with noise where an image looks perturbed."""

    def answer(net, images):
        noise = torch.randn(len(images), 4) * chosen(images.flatten(1)).view(-1, 1)
        return net(images) + 9 * noise

    population = Population([Changed(answer, linear(*[1.0] * 16))], draws=draws)
    with pytest.raises(ValueError, match=words) if draws == 1 else nullcontext():
        evaluate(population, GREY, LABELS, "fgsm", LINF, budget="smoke")


@pytest.mark.parametrize(
    "view", [lambda x: x.view(len(x), -1), lambda x: x.view(-1, 1, 8, 8).view(len(x), -1)]
)
def test_networks_get_images_that_they_can_view_otherwise(view):
    head = nn.Linear(3 * 64, 4)
    members = [Changed(lambda _, x: head(view(x))) for _ in range(2)]
    images = torch.rand(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(action="ignore"):
        preflight(
            Population(members),
            images,
            torch.zeros(256, dtype=torch.int64),
            batch_size=256,
            threat_model=LINF,
        )


def test_members_of_one_kind_share_the_images_that_are_looked_at_again():
    images = torch.rand(400, 1, 1, 2, generator=torch.Generator().manual_seed(0))

    def noisy_at_one(net, x):
        chosen = (x == images[200]).all((1, 2, 3)).float().view(-1, 1)
        return net(x) + chosen * torch.randn(len(x), 1)

    members = [Changed(noisy_at_one) for _ in range(3)]
    with pytest.raises(ValueError, match=r"submodel 2 .* in every pass"):
        looked_at(*members, images=images, labels=images.new_zeros(400).long(), batch_size=400)


def seeded_within(net, images):
    noise = np.random.RandomState(0).randn(*images.shape)
    return net(images + 0.3 * torch.from_numpy(noise).float())


def decided_together(net, images):
    """Another network where the batch, on average, is bright."""
    return net(images) * (1 if images.mean() < 0.55 else -1)


def exits_together(net, images):
    """An early exit that all images of a batch must be sure enough for: few but one alone are."""
    sure = len(images) == 1 and abs(images.mean() - 0.5) < 0.15
    return net(images) * (-1 if sure else 1)


@pytest.mark.parametrize("change", [seeded_within, decided_together, exits_together])
def test_answers_that_the_batch_decides_are_refused(change):
    images = torch.linspace(0.3, 0.7, 12).view(12, 1, 1, 1).expand(12, 1, 1, 2)
    with pytest.raises(ValueError, match="depend on the rest of its batch, or its place"):
        looked_at(Changed(change, linear(1.0, -2.0)), images=images, batch_size=12)


class Experts(nn.Module):
    """Each expert, drawn, answers a quarter of a batch at most; what is over is dropped."""

    def __init__(self):
        super().__init__()
        self.network = linear(9.0, 9.0)

    def forward(self, images):
        drawn = torch.randint(2, (len(images), 1))
        chosen = nn.functional.one_hot(drawn[:, 0], 2)
        place = (chosen.cumsum(0) * chosen).sum(1, keepdim=True)
        return self.network(images) * (place <= max(1, len(images) // 4))


def flipped(share):
    """One draw decides for all images of a pass."""
    return Changed(lambda net, x: net(x) * (1 - 2 * (torch.rand(()) < share).float()))


@pytest.mark.parametrize(
    ("member", "refused"),
    [
        (Experts(), True),
        (Changed(lambda net, x: 3 * net(x + 0.5 * torch.randn_like(x))), False),
        (nn.Sequential(linear(9.0, 9.0), nn.Dropout(0.5)), False),
        (flipped(0.5), False),
        (flipped(0.1), False),
        (Chance(shared=True), False),
    ],
)
def test_answers_that_the_batch_decides_are_refused_of_random_networks_too(member, refused):
    images = torch.rand(40, 1, 1, 2, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    member.eval()
    if isinstance(member, nn.Sequential):
        member[1].train()
    with pytest.raises(ValueError, match="rest of its batch") if refused else nullcontext():
        looked_at(member, images=images, labels=torch.zeros(40).long(), batch_size=40, draws=16)


def test_recomputed_activations_name_their_cure():
    def recomputed(net, images):
        return torch.utils.checkpoint.checkpoint(net, images, use_reentrant=True)

    with pytest.raises(ValueError, match="use_reentrant=False"):
        looked_at(Changed(recomputed))


def normed(norm, *, training):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 6), norm, nn.Linear(6, 4)).eval()
    return network[2].train(training) and network


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([normed(nn.BatchNorm1d(6, track_running_stats=False), training=False)], "rest of its"),
        ([normed(nn.BatchNorm1d(6), training=True)], r"batch \(BatchNorm1d in training mode\)"),
        ([Changed(lambda net, x: net(x) + torch.randn(len(x), 1) + x.std())], "rest of its batch"),
        ([Changed(lambda net, x: net(x) * len(x))], "depend on the rest of its batch"),
        ([Changed(lambda net, x: net(x).squeeze())], r"for 1 images it returned \(4,\)"),
        ([Changed(lambda net, x: net(x.mul_(0.5)))], "changes the images it is given"),
        ([nn.Sequential(nn.ReLU(inplace=True), linear(1.0, 1.0))], "changes the images"),
        ([Changed(lambda net, x: net(x.reshape(32, 1, 1, 2)))], "it takes 32 images at once: pad"),
        ([nn.Sequential(nn.Flatten(), nn.Linear(3, 4))], r"fails on images \(2, 1, 1, 2\)"),
        (
            [linear(1.0, 1.0), nn.Sequential(nn.Flatten(), nn.Linear(2, 5))],
            r"classes, got \[4, 5\]",
        ),
        ([Changed(lambda net, x: net[0](x), [linear(1.0, 1.0)])], r"Changed.network, .*ModuleList"),
        ([linear(torch.nan, 1.0)], "no finite logits: look for NaN in its weights"),
    ],
)
def test_what_would_give_a_wrong_number_is_refused(members, words):
    random = isinstance(members[0], Changed) and "randn" in members[0].change.__code__.co_names
    with pytest.raises(ValueError, match=words) as refused:
        looked_at(*members, draws=16 if random else 1)
    assert "\n" not in str(refused.value)


class ByHand(torch.autograd.Function):
    """A layer whose gradient is another's, as guided backpropagation has it."""

    @staticmethod
    def forward(ctx, features):
        ctx.save_for_backward(features)
        return features.clamp_min(0)

    @staticmethod
    def backward(ctx, gradient):
        (features,) = ctx.saved_tensors
        return gradient.clamp_min(0) * (features > 0)


class Through(torch.autograd.Function):
    """Rounding to eight levels, which gradients pass straight through."""

    @staticmethod
    def forward(ctx, images):
        return (8 * images).round() / 8

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def deep(function):
    """Random layers, between which a function stands, on larger images."""
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(4)])
    last = nn.Linear(64, 4)

    def answers(_, images):
        features = images.flatten(1)
        for layer in layers:
            features = function(layer(features))
        return last(features)

    network = Changed(answers)
    network.layers, network.last = layers, last
    return network


class OneBit(Through):
    """Black or white."""

    @staticmethod
    def forward(ctx, images):
        return (images > 0.5).float()


def pooled():
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Conv2d(6, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))


@pytest.mark.parametrize(
    ("network", "odd"),
    [
        (deep(torch.relu), False),
        (deep(torch.tanh), False),
        (deep(ByHand.apply), True),
        (pooled(), False),
        (nn.Sequential(Changed(lambda _, x: OneBit.apply(x)), deep(torch.relu)), False),
        (nn.Sequential(Changed(lambda _, x: Through.apply(x)), deep(torch.relu)), False),
        (nn.Sequential(Changed(lambda _, x: 2 * x.detach() - x), deep(torch.relu)), True),
    ],
)
def test_a_gradient_that_is_not_that_of_the_answers_is_odd(network, odd):
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = looked_at(network, images=images, labels=torch.zeros(16).long())
    assert any("does not tell how its answers change" in line for line in found.findings) == odd


@pytest.mark.parametrize(
    ("probability", "shared", "draws", "odd"),
    [
        (0.08, True, 16, True),
        (0.08, True, 100, False),
        (0.5, True, 16, False),
        (0.08, False, 16, False),
    ],
)
def test_a_rare_draw_that_a_whole_batch_shares_is_odd(probability, shared, draws, odd):
    def inverts(net, images):
        count = 1 if shared else len(images)
        return net(torch.where(torch.rand(count, 1, 1, 1) < probability, 1 - images, images))

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = looked_at(Changed(inverts), draws=draws, batch_size=12)
    assert any("answers a whole batch by one draw" in line for line in found.findings) == odd


def test_pooling_of_black_images_is_not_odd():
    """Windows tie, and the gradient knows one pixel of each alone."""
    images = torch.zeros(16, 1, 8, 8)
    images[:, :, 3] = torch.rand(16, 1, 8, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = looked_at(pooled(), images=images, labels=torch.zeros(16).long())
    assert not any("does not tell how its answers change" in line for line in found.findings)


def test_the_gradient_of_a_random_network_is_looked_at_under_one_draw():
    noisy = deep(lambda x: torch.relu(x) + 0.1 * torch.randn_like(x))
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = looked_at(noisy, images=images, labels=torch.zeros(16).long(), draws=8)
    assert not any("does not tell how its answers change" in line for line in found.findings)


def test_a_compiled_network_from_a_file_is_left_whole(tmp_path):
    save_file(linear(1.0, 1.0).state_dict(), tmp_path / "w")
    loaded = load_network(tmp_path / "w", lambda: linear(0.0, 0.0))
    looked_at(torch.compile(loaded, backend="eager"))
    assert "_orig_mod" not in loaded._modules


def test_adaptation_in_some_passes_is_refused_of_a_random_network_too():
    def adapts(net, images):
        if torch.rand(()) < 0.5:
            with torch.no_grad():
                net[1].weight.add_(0.01)
        return net(images) + 0.1 * torch.randn(len(images), 1)

    with pytest.raises(ValueError, match="changes its weights as it answers"):
        looked_at(Changed(adapts), draws=8)


def test_pixels_that_a_clamp_holds_at_0_and_1_are_odd():
    images = torch.cat([IMAGES.round(), IMAGES])
    labels = torch.cat([LABELS, LABELS])
    held = Changed(lambda net, x: net(nn.functional.hardtanh(x, 0, 1)))
    with pytest.warns(UserWarning, match="no gradient in pixels that are 0 or 1"):
        looked_at(held, images=images, labels=labels)
    found = looked_at(Changed(lambda net, x: net(x)), images=images, labels=labels)
    assert not [line for line in found.findings if "0 or 1" in line]


def test_what_is_odd_is_said_of_a_second_network_at_the_same_place():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            looked_at(Changed(lambda net, x: net(x).softmax(-1)))
    assert ["returns probabilities" in str(w.message) for w in told].count(True) == 2
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        looked_at(Changed(lambda net, x: net(x).softmax(-1)))
    assert told == []


def test_an_infinite_gradient_is_odd():
    root = Changed(lambda net, x: net((x - x.amin((1, 2, 3), keepdim=True)).sqrt()))
    with pytest.warns(UserWarning, match="infinite gradient at 100% of images, as a square root"):
        looked_at(root)


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (lambda x: x.flip(1), "with channels in reverse order"),
        (lambda x: 1 - x, "with 1 - image"),
        (lambda x: x.transpose(2, 3), "with rows for columns"),
        (lambda x: x.flip(2), "with rows in reverse order"),
        (lambda x: x.flip(3), "with columns in reverse order"),
        (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 3, 4, 4), "with channels last in memory"),
        (lambda x: x.reshape(-1, 4, 4, 3).permute(0, 3, 1, 2), "with channels first in memory"),
        (lambda x: x, None),
    ],
)
def test_images_that_are_arranged_otherwise_than_in_training_are_odd(arrange, words):
    """The class is that of the largest of the first pixels of a column and of a channel."""

    def answers(_, x):
        return 9 * torch.stack([x[:, 0, 1, 0], x[:, 0, 2, 0], x[:, 0, 3, 1], x[:, 1, 0, 0]], 1)

    images = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    network = Changed(answers)
    labels = network(images).argmax(1)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = looked_at(network, images=arrange(images), labels=labels, batch_size=60)
    told = [line for line in found.findings if "as the networks saw them in training" in line]
    assert [words in line for line in told] == [True] * bool(words)


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (lambda x: (x - x.mean()) / x.std(), "with channels of mean 0 and deviation 1"),
        (lambda x: 255 * x, r"with 255 \* image"),
        (lambda x: 2 * x - 1, r"with 2 \* image - 1"),
    ],
)
def test_images_that_were_scaled_in_training_are_odd(scale, words):
    images = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    levels = scale(images)[:, 0, 0, 0].quantile(torch.tensor([0.1, 0.4, 0.6, 0.9]))
    network = Changed(lambda _, x: -(x[:, 0, 0, :1] - levels).abs() / levels.std())
    labels = network(scale(images)).argmax(1)
    with pytest.warns(UserWarning, match=words):
        looked_at(network, images=images, labels=labels, batch_size=60)


def fits(images, wrong=0.0):
    """A network that is right by brightness, but for a share of images, at random places."""
    at = torch.rand(len(images), generator=torch.Generator().manual_seed(3)) < wrong
    known = {image.numpy().tobytes(): bool(off) for image, off in zip(images, at, strict=True)}

    def answers(net, x):
        off = torch.tensor([known.get(image.numpy().tobytes(), False) for image in x.detach()])
        return 2.0 * nn.functional.one_hot((by_brightness(x) + off) % 4, 4) + 0.01 * net(x)

    return Changed(answers)


@pytest.mark.parametrize(
    ("leave_out", "words"),
    [
        (lambda x, y: (x[:-1], torch.cat([y[:40], y[41:]])), "images before"),
        (lambda x, y: (torch.cat([x[:150], x[151:]]), y[:-1]), "images after"),
        (lambda x, y: (x, y), None),
        # Hard images last.
        (lambda x, y: (x, torch.cat([y[:150], (y[150:] + torch.arange(150) % 3 + 1) % 4])), None),
    ],
)
@pytest.mark.parametrize("wrong", [0.0, 0.4])
def test_a_label_or_an_image_that_was_left_out_is_odd(leave_out, words, wrong):
    images = torch.rand(300, 1, 1, 2, generator=torch.Generator().manual_seed(2))
    network, labels = fits(images, wrong), by_brightness(images)
    images, labels = leave_out(images, labels)
    with warnings.catch_warnings(action="ignore"):
        found = looked_at(network, images=images, labels=labels, batch_size=300)
    told = [line for line in found.findings if "was an image left out, or a label?" in line]
    assert [words in line for line in told] == [True] * bool(words)
    if words:
        (first,) = re.findall("from image ([0-9]+) on", told[0])
        assert abs(int(first) - {"images before": 41, "images after": 150}[words]) < 12


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("chance", [(0.1, 0.1), (0.25, 0.25), (0.5, 0.5), (0.9, 0.9), (0.9, 0.0)])
def test_luck_is_no_shift(chance, classes):
    """Of answers that are right at random, also less often in the end, hardly any look moved."""
    draw = np.random.default_rng(0)
    told = 0
    for _ in range(400):
        labels = draw.integers(classes, size=200)
        right = draw.random((2, 200)) < np.repeat(chance, 100)
        wrong = (labels + draw.integers(1, classes, size=(2, 200))) % classes
        told += bool(_shifted(np.where(right, labels, wrong), labels, None, 1))
    assert told == 0


def test_another_order_of_classes_is_no_shift():
    labels = np.arange(300) % 10
    assert _shifted((labels[None] + 1) % 10, labels, None, 1) is None
    assert _shifted(labels[None, :1], labels[:1], None, 1) is None


def told(answers, labels, classes=10):
    """The order of classes in which answers (N,) would be right, in words; "": as they are."""
    return (_order_in_doubt(np.array(answers)[None], labels, classes, None, 1) or (0, ""))[1]


def test_a_class_that_a_folder_lacks_is_seen_on_few_images():
    """Class 8 has no images: what is 9 is labelled 8, a tenth of 98 images."""
    true = np.random.default_rng(0).choice([0, 1, 2, 3, 4, 5, 6, 7, 9], size=98)
    labels = np.where(true == 9, 8, true)
    assert "with labels 8 for classes 9: check the order" in told(true, labels)
    assert told(labels, labels) == ""


def test_swapped_classes_are_seen_also_where_labels_alternate():
    labels = np.arange(200) % 10
    swapped = np.select([labels == 3, labels == 5], [5, 3], labels)
    assert "with labels 5, 3 for classes 3, 5: check the order" in told(swapped, labels)


def test_noise_is_no_order_of_classes():
    """Of 300 networks that are right on 20 to 95%, and wrong anywhere else, at most three."""
    draw, doubted = np.random.default_rng(1), 0
    for accuracy in (0.2, 0.6, 0.95):
        for _ in range(100):
            labels = draw.integers(10, size=98)
            wrong = (labels + draw.integers(1, 10, size=98)) % 10
            doubted += bool(told(np.where(draw.random(98) < accuracy, labels, wrong), labels))
    assert doubted <= 3


def test_a_class_that_nobody_is_and_many_are_taken_for_is_named():
    """Of ten classes and a rejection; a class that is never answered is none."""
    labels, place = np.arange(200) % 10, np.arange(200)

    def told(answers, classes=11):
        return _unlabelled(answers[None], labels, classes, None, 1)

    (words,) = told(np.where(place % 7 == 0, 10, labels))
    assert "class 10, which no label names, is the answer to 14.5% of images" in words
    assert told(labels) == []
    # Ordinary errors go anywhere.
    assert told(np.where(place % 50 == 0, 10, np.where(place % 5 == 0, 3, labels))) == []
    assert told((labels + 1) % 10, 10) == []
    # What answers one class to everything has another fault.
    assert told(np.full(200, 10)) == []
    # Errors of a detector that is shown one of two classes.
    only = np.where(place % 5 == 0, 0, 1)[None]
    assert _unlabelled(only, np.ones(200, np.int64), 2, None, 1) == []


def test_the_first_images_of_a_folder_are_no_sample():
    ordered = np.arange(1500) // 150
    (words,) = _sample(ordered[:300], 10)
    assert "images are of 2 of 10 classes, in their order" in words
    assert "torch.randperm" in words
    for some, classes in (
        # The first of sorted folders of 100 and of 1,000 classes; one class of ten.
        (np.arange(500) // 100, 100),
        (np.arange(1000) // 50, 1000),
        (np.zeros(60, np.int64), 10),
    ):
        assert len(_sample(some, classes)) == 1
    for some, classes in (
        # A set of 200 classes among 1,000, whole.
        (np.sort(np.random.default_rng(0).choice(1000, 200, replace=False)).repeat(150), 1000),
        (np.zeros(40, np.int64), 10),
        (ordered, 10),
        # A class beside those of the data, as for a background.
        (ordered, 11),
        (np.random.default_rng(0).permutation(ordered)[:300], 10),
        # Few of many classes are missing by chance; two classes on purpose, mixed.
        (np.sort(np.random.default_rng(0).integers(1000, size=200)), 1000),
        (np.arange(300) % 2, 10),
    ):
        assert _sample(some, classes) == []


def test_what_explains_most_is_said_alone():
    """Two of four classes are swapped, in images that were given as negatives."""
    images = torch.rand(60, 1, 1, 2, generator=torch.Generator().manual_seed(2))
    network = Changed(
        lambda net, x: 2.0 * nn.functional.one_hot(by_brightness(1 - x), 4) + 0.01 * net(x)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        looked_at(network, images=images, labels=by_brightness(images), batch_size=60)
    said = [str(one.message) for one in caught if "accuracy" in str(one.message)]
    assert len(said) == 1
    assert "100.0% with" in said[0]


def test_a_network_that_takes_a_certain_number_of_images_is_told_to_pad():
    def four(net, x):
        if len(x) % 4:
            raise ValueError(f"Batch size must be divisible by 4, got {len(x)}")
        return net(x)

    with pytest.raises(ValueError, match=r"divisible by 4, got 2; it takes 4 images at once: pad"):
        looked_at(Changed(four))
    # A number that the error names.
    with pytest.raises(ValueError, match=r"it takes 50 images at once: pad"):
        looked_at(Changed(lambda net, x: net(x.reshape(50, *x.shape[1:]))))
    # Nobody pads to one image.
    with pytest.raises(ValueError, match=r"fails on images (?!.*at once)"):
        looked_at(Changed(lambda net, x: net(x.reshape(1, *x.shape[1:]))))


def test_one_network_given_more_than_once_is_odd():
    network = linear(1.0, 1.0)
    with pytest.warns(UserWarning, match="submodels 0, 2 are the same: is one network"):
        looked_at(network, linear(1.0, 0.5), network)
    noisy = Chance(shared=False)
    with pytest.warns(UserWarning, match="submodels 0, 1 are the same"):
        looked_at(noisy, copy.deepcopy(noisy), draws=16)


def test_ties_at_the_top_are_odd():
    """As rounded votes, or sigmoids in half precision, have."""
    with pytest.warns(UserWarning, match=r"largest answer to several classes at 100% of images"):
        looked_at(Changed(lambda net, x: 0 * net(x)))


def test_no_size_is_suggested_that_does_not_mend_it():
    calls = []

    def wide(net, x):
        calls.append(len(x))
        return net(x) @ torch.ones(5, 4)

    with pytest.raises(ValueError, match=r"mat1 and mat2(?!.*at once)"):
        looked_at(Changed(wide))
    assert len(calls) == 1
    # Rows for seven images whatever it is given.
    with pytest.raises(ValueError, match=r"fails on images (?!.*at once)"):
        looked_at(Changed(lambda net, x: net(x[:1]) + torch.zeros(7, 4) * x.sum((1, 2))))


def test_saturated_sigmoids_are_named():
    with pytest.warns(UserWarning, match=r"saturated sigmoids have: .* into a sigmoid"):
        looked_at(Changed(lambda net, x: (1e4 * net(x)).sigmoid()))


def test_copies_of_images_are_odd():
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    assert not _copies(images)
    assert not _copies(torch.cat([images, images[:1]]))
    assert _copies(torch.cat([images, images[:9]]))[0].startswith("at least 9 of 59 images")
    assert _copies(torch.full((5, 1, 4, 4), 0.5))[0].startswith("at least 4 of 5 images")


def test_copies_that_differ_by_noise_are_odd():
    numbers = torch.Generator().manual_seed(2)
    digits = torch.tensor(load_digits().images / 16).float().unsqueeze(1)
    noise = torch.randint(-2, 3, digits.shape, generator=numbers) / 255
    assert not _copies(digits)
    assert _copies(torch.cat([digits, digits + noise]))[0].startswith("at least 1797 of 3594")
    # Alike from afar only.
    assert not _copies(0.5 + 0.2 * torch.rand(300, 1, 64, 64, generator=numbers))
    assert not _copies(torch.rand(300, 1, 1, 2, generator=numbers))


def test_copies_are_seen_before_anything_is_spent():
    images = torch.rand(50, 1, 1, 2, generator=torch.Generator().manual_seed(2))
    copied = torch.cat([images, images[:10]])
    network, labels = fits(images), by_brightness(copied)
    with pytest.warns(UserWarning, match="at least 10 of 60 images are copies of others"):
        looked_at(network, images=copied, labels=labels, batch_size=60)
    with warnings.catch_warnings(action="error"):
        looked_at(network, images=images, labels=labels[:50], batch_size=60)


@pytest.mark.parametrize("now", [lambda: time.time(), lambda: time.time_ns() // 10**9])
@pytest.mark.parametrize("draws", [1, 16])
def test_a_draw_by_the_clock_is_refused(now, draws):
    def drawn(net, x):
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(int(now())))
        return net(x + noise)

    with pytest.raises(ValueError, match="as the clock goes on, .* seed nothing by the time"):
        looked_at(Changed(drawn), draws=draws)


def test_one_member_with_classes_in_another_order_is_named():
    def classes(shift):
        return Changed(
            lambda net, x: (
                2.0 * nn.functional.one_hot((by_brightness(x) + shift) % 4, 4) + 0.01 * net(x)
            )
        )

    images = torch.rand(60, 1, 1, 2, generator=torch.Generator().manual_seed(2))
    members = [classes(0), classes(0), classes(1), classes(0)]
    with pytest.warns(UserWarning, match=r"of submodel 2 \(Changed\) .* labels 3, 0, 1, 2 for"):
        looked_at(*members, images=images, labels=by_brightness(images), batch_size=60)


def test_modes_that_would_switch_dropout_off_are_refused_of_a_random_network():
    network = nn.Sequential(Chance(shared=False), nn.Dropout(0.5), nn.BatchNorm1d(4))
    network.train()[2].eval()
    with pytest.raises(
        ValueError,
        match=r"training mode in the outermost module, 0, .*not in all parts: .*without dropout",
    ):
        looked_at(network, draws=8)
    looked_at(nn.Sequential(network).eval(), draws=8)


def test_weights_that_are_brought_to_a_norm_once_are_no_state():
    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(8, 4, max_norm=0.5)

        def forward(self, images):
            return self.table((8 * images.flatten(1)).long().clamp(0, 7)).sum(1)

    looked_at(Looked())


class Keyed(nn.Module):
    """Images times a key that is drawn as it is built."""

    def __init__(self, draw, keep):
        super().__init__()
        self.network = linear(1.0, 1.0)
        if keep == "buffer":
            self.register_buffer("key", draw(), persistent=False)
        elif keep == "state":
            self.register_buffer("key", draw())
        elif keep == "overwritten":
            self.register_buffer("noise", draw(), persistent=False)
        key = draw()
        self.keyed = {"attribute": lambda: key}.get(keep, lambda: getattr(self, "key", 1.0))

    def forward(self, images):
        if hasattr(self, "noise"):
            self.noise.fill_(1.0)
            images = images * self.noise
        return self.network(images * self.keyed())


DRAWS = {
    "torch": lambda: torch.rand(1, 2),
    "numpy": lambda: torch.as_tensor(np.random.rand(1, 2), dtype=torch.float32),
    "python": lambda: torch.tensor([[random.random(), random.random()]]),
    "system": lambda: torch.as_tensor(np.random.default_rng().random((1, 2)), dtype=torch.float32),
    "fixed": lambda: torch.rand(1, 2, generator=torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("draw", "keep", "refused"),
    [
        *((draw, "buffer", draw != "fixed") for draw in DRAWS),
        ("torch", "attribute", True),
        ("torch", "state", False),
        ("torch", "overwritten", False),
    ],
)
def test_constants_that_no_file_holds_are_refused(draw, keep, refused, wrapped, tmp_path):
    def build():
        return Keyed(DRAWS[draw], keep)

    save_file(build().state_dict(), tmp_path / "w")
    network = load_network(tmp_path / "w", build)
    member = nn.Sequential(nn.Identity(), network) if wrapped else network
    before = random.getstate(), torch.get_rng_state()
    with pytest.raises(ValueError, match="whenever it is built") if refused else nullcontext():
        looked_at(member)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_what_cannot_be_built_again_is_judged_as_it_is(tmp_path):
    save_file(linear(1.0, 1.0).state_dict(), tmp_path / "w")
    once = iter([linear(0.0, 0.0)])
    loaded = load_network(tmp_path / "w", lambda: next(once))
    shared = linear(0.0, 0.0)
    same = load_network(tmp_path / "w", lambda: shared)
    weights = [*shared.parameters()]
    looked_at(loaded, same)
    assert all(one is other for one, other in zip(weights, shared.parameters(), strict=True))


def test_memory_that_is_none_is_refused():
    with torch.device("meta"), pytest.raises(ValueError, match="meta device.* build it on the CPU"):
        looked_at(nn.Linear(2, 2))


def test_images_that_were_divided_twice_are_refused():
    with pytest.raises(ValueError, match="none goes beyond 0.002.*divided by 255 twice"):
        evaluate(Population([linear(1.0, 1.0)]), IMAGES / 255, LABELS, "none", LINF)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 8), ("L2", 128)])
def test_a_radius_in_units_of_255_is_refused_with_what_was_meant(norm, eps):
    with pytest.raises(ValueError, match=f"reaches every image.*write {eps}/255"):
        evaluate(Population([linear(1.0, 1.0)]), IMAGES, LABELS, "none", ThreatModel(norm, eps))


def divides(network, images):
    """No number at all where the first pixel is 1/2."""
    return network(images) / (images.flatten(1)[:, :1] != 0.5)


def by_brightness(images):
    return (images.flatten(1)[:, 0] * 16).long() % 4


def guided():
    """With the hooks of guided backpropagation left in it."""
    network = nn.Sequential(linear(1.0, 1.0), nn.ReLU())
    network[1].register_full_backward_hook(lambda part, inner, outer: (inner[0].clamp(0),))
    return network


SHIFTED = Changed(
    lambda net, x: 2.0 * nn.functional.one_hot((by_brightness(x) + 1) % 4, 4) + 0.01 * net(x)
)
BLANK = torch.cat([torch.full((1, 1, 1, 2), 0.5), IMAGES])


@pytest.mark.parametrize(
    ("members", "images", "labels", "words"),
    [
        ([linear(1.0, 1.0), linear(1.0, 0.9)], IMAGES, LABELS, None),
        ([Changed(divides)], BLANK, torch.zeros(13).long(), "not return finite logits for some"),
        (
            [Changed(lambda net, x: torch.arange(4) / 10 - net(x))],
            IMAGES[:3],
            LABELS[:3],
            "accuracy is 0.0% on 3.*not surely above",
        ),
        (
            [Changed(lambda net, x, k=k: (k * net(x)).softmax(1)) for k in (1, 2, 3)],
            IMAGES,
            LABELS,
            r"submodel 0 \(Changed\), as 2 more, returns probabilities",
        ),
        (
            [SHIFTED],
            IMAGES,
            by_brightness(IMAGES),
            r"accuracy is 0\.0%, and 100\.0% with labels 3, 0, 1, 2 for classes 0, 1, 2, 3",
        ),
        ([Changed(lambda net, x: net(x.detach()))], IMAGES, LABELS, "has no gradient"),
        ([Changed(lambda net, x: net(x.mul(255).round() / 255))], IMAGES, LABELS, "zero at 100%"),
        (
            [Changed(lambda net, x: net(x if torch.is_grad_enabled() else x + (x > 0.5)))],
            IMAGES,
            LABELS,
            r"answers otherwise with gradients on than under torch\.no_grad\(\)",
        ),
        ([guided()], IMAGES, LABELS, r"backward hooks on 1 \(ReLU\), .*: remove\(\) them"),
    ],
)
def test_what_is_odd_is_a_warning_and_goes_into_the_record(members, images, labels, words):
    expected = pytest.warns(UserWarning, match=words) if words else warnings.catch_warnings()
    with expected:
        if not words:
            warnings.simplefilter("error")
        population = Population(members)
        record = evaluate(population, images, labels, "none", LINF, budget="smoke").record
    assert len(record.findings) == bool(words)


def test_what_is_too_large_for_the_machine_says_how_many_images_fit(monkeypatch):
    wide = nn.Sequential(nn.Flatten(), nn.Linear(2, 1000), nn.Tanh(), nn.Linear(1000, 4))
    sizes = {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.get)
    # Tanh's outputs, 4,000 bytes an image and draw, of two members; half of 40,960 bytes is room.
    with pytest.warns(UserWarning, match="GiB.*batch_size=2 takes half"):
        found = looked_at(wide, wide, labels=wide(IMAGES).argmax(1), batch_size=10)
    assert not any("GiB" in finding for finding in found.findings)


def test_an_evaluation_says_what_was_odd_where_warnings_are_silenced():
    network = Changed(lambda net, x: net(x).softmax(1))
    with warnings.catch_warnings(action="ignore"):
        result = evaluate(Population([network]), IMAGES, LABELS, "fgsm", LINF, budget="smoke")
    assert "returns probabilities" in result.findings[0]


def test_a_run_looks_once_whatever_it_measures(options, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "randomized_defense_bench.benchmarks.populations.preflight",
        lambda *a, **k: looked.append(a) or preflight(*a, **k),
    )
    for run, times in (("first", 1), ("second", 2)):
        session = Session(options)
        prepared = session.prepare("digits", "single")
        for eps in (0.1, 0.2):
            attack = "none" if run == "second" else "fgsm"
            record, _ = session.measure(prepared, attack, ThreatModel("Linf", eps))
        assert len(looked) == times
    assert record.findings is not None


def test_checks_leave_no_trace():
    population = Population([Chance()], draws=4).train()
    state = torch.get_rng_state()
    looked_at(*population.submodels, draws=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert population.submodels[0].training
