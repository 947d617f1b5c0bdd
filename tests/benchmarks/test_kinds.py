"""Networks as people really have them: all are judged alike, and stay as they were."""

import random
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ATTACKS, ThreatModel
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.benchmarks.verdict import judge
from randomized_defense_bench.defenses import DEFENSES, Population
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.defenses.registry import register_checkpoint
from stand_ins import linear
from test_preflight import Changed
from torch import nn

# Logits (x0 - x1, 0, 0, 0): a step of 0.05 fools the first image, and not the second.
IMAGES = torch.tensor([[0.52, 0.5], [0.7, 0.4]]).view(2, 1, 1, 2)
LABELS = torch.zeros(2, dtype=torch.int64)
LINF = ThreatModel("Linf", 0.05)


def autocast(network, images):
    with torch.autocast(images.device.type, torch.bfloat16):
        return network(images)


def with_a_graph(network, images):
    with torch.enable_grad():
        leaf = images if images.requires_grad else images.detach().requires_grad_()
        return network(leaf)


def compiled(network):
    return torch.compile(network, backend="aot_eager")


def exported(network):
    some = {0: torch.export.Dim("n")}
    return torch.export.export(network.eval(), (IMAGES,), dynamic_shapes=(some,)).module()


def frozen_script(network):
    return torch.jit.freeze(torch.jit.trace(network.eval(), IMAGES))


class Counting(nn.Module):
    """A network that counts images in evaluation mode, too, and keeps words beside its weights."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        self.seen += len(images)
        return self.network(images)

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        pass


def test_what_a_network_counts_is_forgotten():
    module = Counting(linear(1.0, -1.0))
    judged(module, attacks=["fgsm"])
    assert module.seen == 0


def judged(module, images=IMAGES, **options):
    return judge([module], images, LABELS, LINF, budget="smoke", **options)


@pytest.mark.parametrize(
    ("change", "dtype", "around"),
    [
        (nn.Module.double, torch.float32, nullcontext),
        (nn.Module.double, torch.float64, nullcontext),
        (nn.Module.half, torch.float16, nullcontext),
        (nn.Module.bfloat16, torch.float32, nullcontext),
        (nn.Module.eval, torch.float64, nullcontext),
        (nn.Module.eval, torch.float32, torch.no_grad),
        (nn.Module.eval, torch.float32, torch.inference_mode),
        (nn.Module.eval, torch.float32, partial(torch.autocast, "cpu", torch.bfloat16)),
        (lambda net: Changed(autocast, net), torch.float32, nullcontext),
        (lambda net: Changed(with_a_graph, net), torch.float32, nullcontext),
        (compiled, torch.float32, nullcontext),
        (lambda net: Changed(nn.Module.__call__, compiled(net)), torch.float32, nullcontext),
        (lambda net: torch.jit.trace(net.eval(), IMAGES), torch.float32, nullcontext),
        (frozen_script, torch.float32, nullcontext),
        (Counting, torch.float32, nullcontext),
        (exported, torch.float32, nullcontext),
        (nn.DataParallel, torch.float32, nullcontext),
    ],
)
def test_the_same_network_in_another_form_has_the_same_worst_case(change, dtype, around):
    module = change(linear(1.0, -1.0))
    with around():
        verdict = judged(module, IMAGES.to(dtype))
    assert verdict.row.score("none").value == 1
    assert (verdict.worst.value, verdict.claimed.value) == (0.5, 0.5)


class Strict(torch.Tensor):
    """As fastai's: images and labels, of two kinds, do not mix."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        if any(kind not in (cls, torch.Tensor, nn.Parameter) for kind in types):
            return NotImplemented
        return super().__torch_function__(function, types, arguments, named or {})


class Category(Strict):
    pass


def test_tensors_of_other_libraries_are_tensors():
    images, labels = IMAGES.as_subclass(Strict), LABELS.as_subclass(Category)
    verdict = judge([linear(1.0, -1.0)], images, labels, LINF, budget="smoke")
    assert (verdict.row.score("none").value, verdict.worst.value) == (1, 0.5)
    assert type(verdict.images) is torch.Tensor


def test_one_image_in_batches_of_one():
    verdict = judge([linear(1.0, -1.0)], IMAGES[:1], LABELS[:1], LINF, budget="smoke", batch_size=1)
    assert (verdict.row.score("none").value, verdict.worst.value) == (1, 0)


def by_numpy(network, images):
    weights = network[1].weight.detach().numpy()
    return torch.from_numpy(images.flatten(1).numpy() @ weights.T)


def in_integers(network, images):
    pixels, weights = (255 * images.flatten(1)).round().int(), network[1].weight.round().int()
    return (pixels @ weights.T).float()


@pytest.mark.parametrize(
    "answer",
    [
        by_numpy,
        in_integers,
        torch.no_grad()(nn.Module.__call__),
        torch.inference_mode()(nn.Module.__call__),
        lambda net, x: net(x.detach()),
    ],
)
def test_a_network_without_gradient_is_judged_by_queries_and_fails_the_gate(answer):
    with pytest.warns(UserWarning, match=r"submodel 0 \(Changed\) has no gradient \(.*stand still"):
        verdict = judged(Changed(answer, linear(1.0, -1.0)))
    assert verdict.worst.value == 0.5
    outcomes = {gate.name: gate.outcome for gate in verdict.gates}
    assert outcomes["few images without gradient"] == "failed"
    assert outcomes["nothing odd before the attacks"] == "failed"


class Seen(nn.Dropout):
    """Dropout that notes its modes."""

    def forward(self, features):
        modes.add(self.training)
        return super().forward(features)


modes = set()


@pytest.mark.parametrize("attack", ["none", "fgsm", "autoattack", "worst-case"])
def test_dropout_that_is_kept_on_stays_on_under_attack_and_in_scores(attack):
    """Of both pixels, one and none, only the second pixel alone is answered wrongly."""
    network = nn.Sequential(nn.Flatten(), Seen(0.5), *linear(1.0, -0.4)[1:]).eval()
    images, labels = torch.full((100, 1, 1, 2), 0.5), torch.zeros(100, dtype=torch.int64)
    network[1].train()
    modes.clear()
    at = ThreatModel("Linf", 0.01)
    result = evaluate(Population([network], draws=16), images, labels, attack, at, budget="smoke")
    assert modes == {True}
    assert result.score.value == pytest.approx(0.75, abs=0.04)
    assert (network.training, network[1].training) == (False, True)


def test_a_checkpoint_keeps_its_precision_and_its_modes(monkeypatch, options):
    network = nn.Sequential(lenet5().half(), Seen(0.5)).eval()
    network[1].train()
    monkeypatch.setattr(DEFENSES, "_entries", dict(DEFENSES._entries))
    register_checkpoint("mine", datasets=("digits",), draws=4)(lambda data: [network])
    session = Session(options)
    modes.clear()
    record, _ = session.measure(session.prepare("digits", "mine"), "worst-case", LINF)
    assert modes == {True}
    assert record.correct.shape == (4, 50)


class Views(nn.Module):
    """As tutorials write it: it needs the layout in memory that torch has by default."""

    def __init__(self):
        super().__init__()
        self.convolution, self.layer = nn.Conv2d(1, 4, 5, stride=4), nn.Linear(196, 10)

    def forward(self, images):
        features = self.convolution(images).relu()
        return self.layer(features.view(features.size(0), -1))


def test_a_network_keeps_the_layout_in_memory_that_it_needs(monkeypatch, options):
    monkeypatch.setattr(DEFENSES, "_entries", dict(DEFENSES._entries))
    register_checkpoint("views", datasets=("digits",), members=2)(lambda data: [Views(), Views()])
    session = Session(options)
    for attack in ("none", "fgsm"):
        record, _ = session.measure(session.prepare("digits", "views"), attack, LINF)
    assert record.correct.shape == (2, 50)


@pytest.mark.parametrize("source", [random.random, np.random.random])
def test_a_network_that_draws_from_another_library_is_a_function_of_the_seed(source):
    network = Changed(lambda net, x: net(x) - 0.1 * source())
    population = Population([network], draws=4)
    first = evaluate(population, IMAGES, LABELS, "fgsm", LINF, budget="smoke")
    source()
    again = evaluate(population, IMAGES, LABELS, "fgsm", LINF, budget="smoke")
    assert np.array_equal(first.correct, again.correct)
    assert torch.equal(first.images, again.images)


def everything(network):
    """What a call could change."""
    return {
        "modes": [module.training for module in network.modules()],
        "trainable": [weight.requires_grad for weight in network.parameters()],
        "tensors": [tensor.tolist() for tensor in network.state_dict().values()],
        "gradients": [w.grad is not None and w.grad.tolist() for w in network.parameters()],
        "generators": [
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1:3],
        ],
        "flags": [
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
            (torch.tensor(torch.finfo(torch.float32).smallest_normal) / 2).item(),
        ],
    }


@pytest.mark.parametrize("error", [None, RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("flush", [False, True])
def test_nothing_of_the_users_is_touched(monkeypatch, error, flush):
    def attack(model, images, labels, *, threat_model):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(1)
        model(images.requires_grad_()).sum().backward()
        if error:
            raise error
        return images.detach()

    layers = nn.Flatten(), nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4)
    network = nn.Sequential(*layers)
    network[1].weight.requires_grad_(False)
    network(torch.rand(5, 1, 1, 2)).sum().backward()
    monkeypatch.setitem(ATTACKS._entries, "fgsm", replace(ATTACKS["fgsm"], function=attack))
    torch.set_flush_denormal(flush)
    before = everything(network)
    interrupted = pytest.raises(type(error)) if error else nullcontext()
    with torch.no_grad(), interrupted:
        judged(network, attacks=["pgd-clipped-margin", "autoattack", "fgsm"])
    assert str(everything(network)) == str(before)
