"""Certificates: they hold for every image of the ball, and are tight where that can be computed."""

import re
from pathlib import Path

import pytest
import torch
from randomized_defense_bench.attacks import CERTIFICATES, ThreatModel
from randomized_defense_bench.benchmarks.datasets import DATASETS, experiment, load
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.defenses import DEFENSES, Population, Recipe, Task, clopper_pearson
from randomized_defense_bench.defenses.interval_bounds import certify, interval_bounds
from randomized_defense_bench.defenses.noise import Noise
from randomized_defense_bench.defenses.training import initialise
from scipy.stats import norm
from torch import nn


class Residual(nn.Module):
    """Every part that bounds are known of; in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        pools = nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.pools = nn.Sequential(*pools, nn.Dropout())
        self.last = nn.Linear(4, 3)
        for part in (self.first[1].weight, self.first[1].bias, self.first[1].running_mean):
            nn.init.normal_(part)
        self.eval()

    def forward(self, images):
        features = self.first(images)
        features = features + self.second(features)
        return self.last(torch.flatten(self.pools(features), 1))


def test_no_image_of_the_box_leaves_the_bounds():
    torch.manual_seed(0)
    network, lower = Residual(), torch.rand(8, 1, 16, 16)
    upper = lower + 0.1 * torch.rand_like(lower)
    with torch.no_grad():
        low, high = interval_bounds(network, lower, upper, rounding=2**-24)
        for share in (0, 1, *torch.rand(50, *lower.shape).round(), *torch.rand(50, *lower.shape)):
            logits = network(lower + share * (upper - lower))
            assert ((low <= logits) & (logits <= high)).all()
        point = interval_bounds(network, lower, lower)
        assert all(torch.allclose(end, network(lower), atol=1e-6) for end in point)


def test_bounds_of_a_linear_layer_are_exact():
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    layer.weight.data[0, 1] = -2
    bounds = interval_bounds(layer, torch.zeros(1, 2), torch.ones(1, 2))
    assert [end.item() for end in bounds] == [-2, 1]


def test_what_bounds_do_not_know_is_named():
    with pytest.raises(ValueError, match="do not know Softplus"):
        interval_bounds(nn.Sequential(nn.Softplus()), torch.zeros(1, 1), torch.ones(1, 1))


@pytest.fixture(scope="module")
def digits():
    return load("digits", None, 1000, 60)


@pytest.fixture(scope="module")
def trained(digits):
    """Populations by defense, one member each."""

    def population(name, **parameters):
        build = DEFENSES[name].build or type(DATASETS["digits"]).standard_network
        made = initialise(lambda: build(DATASETS["digits"]), 1, seed=0)
        recipe = Recipe(optimizer="adam", learning_rate=2e-3, epochs=10, batch_size=50)
        data = {"images": digits.train_images, "labels": digits.train_labels}
        task = Task(**data, recipe=recipe, seed=0, load=None)
        defense = DEFENSES[name]
        defense.run_training(made, task, defense.parameters(parameters))
        return made.eval()

    return population


def test_no_attack_reaches_below_what_ibp_certifies(trained, digits):
    population, at = trained("ibp", eps=0.05), ThreatModel("Linf", 0.05)
    data = digits.test_images, digits.test_labels
    proven = evaluate(population, *data, "interval-bounds", at, protocol="certified").correct
    attacked = evaluate(population, *data, "pgd-clipped-margin", at).correct
    assert proven.mean() > 0.2
    assert not (proven & ~attacked).any()
    plain = trained("single").submodels[0]
    assert certify(plain, *data, threat_model=at).mean() < 0.05


def noisy(margin, sigma):
    """Two classes apart by a plane at a distance from the image, under noise."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
        linear.bias.copy_(torch.tensor([margin - 0.7, 0.0]))
    member = Noise(nn.Sequential(nn.Flatten(), linear))
    member.sigma.fill_(sigma)
    return member, torch.full((40, 1, 1, 2), 0.5), torch.zeros(40, dtype=torch.int64)


def test_smoothing_certifies_a_plane_tightly_and_never_too_much():
    """Of a plane the bound is attained: the probability at the ball's nearest point."""
    member, images, labels = noisy(margin=0.3, sigma=0.2)
    torch.manual_seed(0)
    bounds = clopper_pearson.certify(
        member, images, labels, threat_model=ThreatModel("L2", 0.1), samples=4000
    )
    exact = norm.cdf((0.3 - 0.1) / 0.2)
    assert (bounds <= exact).all()
    assert bounds.min() > exact - 0.06
    for margin, known in ((10.0, 0.001 ** (1 / 50)), (-10.0, 0.0)):
        member, images, labels = noisy(margin, 0.2)
        at = ThreatModel("L2", 0.0)
        bound = clopper_pearson.certify(member, images[:1], labels[:1], threat_model=at, samples=50)
        assert float(bound) == pytest.approx(known)
    with pytest.raises(ValueError, match="Linear is not a network with Gaussian noise"):
        clopper_pearson.certify(nn.Linear(2, 2), images, labels, threat_model=at, samples=5)


def test_a_certificate_of_a_random_network_is_a_record_of_levels():
    member, images, labels = noisy(margin=0.3, sigma=0.2)
    proven = evaluate(
        Population([member], draws=4),
        *(images, labels, "clopper-pearson", ThreatModel("L2", 0.1)),
        protocol="certified",
    )
    assert proven.correct.shape == (100, 40)
    assert (proven.correct[:-1] >= proven.correct[1:]).all()
    assert proven.record.case.attack_parameters["samples"] == 1000
    assert norm.cdf(1) - 0.1 < proven.score.value < norm.cdf(1)


def test_a_population_is_certified_by_its_law():
    def constant(label):
        linear = nn.Linear(4, 2)
        nn.init.zeros_(linear.weight)
        linear.bias.data = 3 * torch.eye(2)[label]
        return nn.Sequential(nn.Flatten(), linear)

    population = Population([constant(0), constant(1)], probabilities=(0.75, 0.25))
    data = torch.rand(8, 1, 2, 2), torch.tensor([0, 1] * 4)
    at = ThreatModel("Linf", 1.0)
    proven = evaluate(population, *data, "interval-bounds", at, protocol="certified")
    assert proven.record.answers.s.tolist() == [0.75, 0.25] * 4
    assert DEFENSES["ibp"].certificate == "interval-bounds"
    assert experiment("paper", "mnist").arguments("ibp")["eps"] == 0.3


def test_the_documented_certificate_counts_as_any(monkeypatch):
    monkeypatch.setattr(CERTIFICATES, "_entries", dict(CERTIFICATES._entries))
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    (code,) = re.findall(r"```python\n(# defenses/constant.py.*?)```", text, re.DOTALL)
    exec(code, {"__name__": "constant"})
    torch.manual_seed(0)
    fixed, other = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
    nn.init.zeros_(fixed[1].weight)
    images = torch.rand(8, 1, 2, 2)
    labels = fixed(images).argmax(1)
    at = ThreatModel("L2", 1.0)
    proven = evaluate(
        Population([fixed, other]), images, labels, "constant", at, protocol="certified"
    )
    assert proven.correct.tolist() == [[True] * 8, [False] * 8]
