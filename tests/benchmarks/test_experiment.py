import re
import sys
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ATTACKS, CERTIFICATES, ThreatModel, registry
from randomized_defense_bench.benchmarks.case import build_case
from randomized_defense_bench.benchmarks.datasets import DATASETS, Raw, experiment, register_dataset
from randomized_defense_bench.benchmarks.evaluation import subject_of
from randomized_defense_bench.benchmarks.experiment import standard
from randomized_defense_bench.benchmarks.session import Options, Session
from randomized_defense_bench.defenses import DEFENSES, Population, Recipe
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.defenses.noise import Noise
from randomized_defense_bench.defenses.surrogate import Plan
from randomized_defense_bench.leaderboard.rows import BUDGETS
from torch import nn

PAIRS = [(budget, dataset) for dataset in DATASETS for budget in BUDGETS]
EXTENDING = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()


class SVHN:
    """A stand-in for torchvision's, without a download."""

    def __init__(self, root, *, split, download):
        self.labels = np.arange(400) % 10
        pixels = np.repeat(self.labels * 25, 3 * 32 * 32).astype(np.uint8)
        self.data = pixels.reshape(-1, 3, 32, 32)


def test_the_documented_dataset_is_one_file_of_any_package(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# benchmarks/datasets/svhn.py.*?)```", EXTENDING, re.DOTALL)
    (tmp_path / "house_numbers.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("torchvision.datasets.SVHN", SVHN)
    # The quicker network.
    monkeypatch.setattr("randomized_defense_bench.defenses.architectures.cifar_resnet18", lenet5)
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    group = "randomized_defense_bench.datasets"
    offered = {group: [EntryPoint("svhn", "house_numbers", group)]}
    monkeypatch.setattr(registry, "entry_points", lambda group: offered[group])
    DATASETS.load_plugins()
    monkeypatch.delitem(sys.modules, "house_numbers")

    assert [experiment(budget, "svhn").radii for budget in BUDGETS] == [{"Linf": (8 / 255,)}] * 4
    folders = {name: tmp_path / name for name in ("data_root", "store", "results")}
    session = Session(Options(budget="smoke", run="test", **folders))
    prepared = session.prepare("svhn", "single")
    assert prepared.dataset.test_images.shape == (16, 3, 32, 32)
    assert session.measure(prepared, "pgd", ThreatModel("Linf", 8 / 255))[0].headline


@pytest.mark.parametrize(("draws", "expected", "claimed"), [(1, 500, 1000), (16, 200, 1000)])
def test_attacks_on_the_expectation_over_fresh_draws_are_measured_on_fewer_images(
    draws, expected, claimed
):
    noise = Noise(nn.Flatten())
    noise.get_buffer("sigma").fill_(draws - 1)
    images, ball = torch.rand(1000, 1, 2, 5), ThreatModel("Linf", 8 / 255)
    labels = torch.randint(10, (1000,))
    population = Population([noise], draws=draws)
    with warnings.catch_warnings(action="ignore"):
        subject = subject_of(population, images, labels, ball, batch_size=100)
    cases = {
        attack: build_case(
            subject, attack, ball, experiment("quick", "cifar10"), budget="quick", seed=0
        )
        for attack in ("worst-case", "pgd", "none")
    }
    assert {attack: case.images for attack, case in cases.items()} == {
        "worst-case": expected,
        "pgd": claimed,
        "none": claimed,
    }
    # Twenty clusters, at least, where draws are shared.
    assert cases["pgd"].images_per_draw == (1 if draws == 1 else expected // 20)


def test_a_dataset_lacks_no_budget():
    recipe = Recipe(optimizer="adam", learning_rate=1e-3, epochs=5, batch_size=100)
    numbers = standard(radii={"Linf": (0.3,)}, step_size=0.01, recipe=recipe)
    del numbers["quick"]
    with pytest.raises(
        ValueError, match="'mine' has experiments for smoke, paper-short, paper; expected smoke"
    ):
        register_dataset("mine", channels=1, classes=10, network=lenet5, experiments=numbers)


def test_unknown_names_are_explained():
    with pytest.raises(LookupError, match=r"no budget 'quik' for dataset 'mnist' \(budgets: smoke"):
        experiment("quik", "mnist")
    with pytest.raises(LookupError, match="unknown dataset 'minst'; did you mean 'mnist'"):
        experiment("quick", "minst")


@pytest.mark.parametrize(("budget", "dataset"), PAIRS)
def test_names_are_known_curves_go_beyond_the_ranked_radii_and_counter_linking_happens(
    budget, dataset
):
    numbers = experiment(budget, dataset)
    assert numbers.attacks.keys() <= {*ATTACKS, *CERTIFICATES}
    assert numbers.defenses.keys() <= set(DEFENSES)
    for norm, radii in numbers.radii.items():
        assert max(numbers.sweep_radii[norm]) > max(radii)
    images = numbers.train_images or {"digits": 1437, "mnist": 60_000, "cifar10": 50_000}[dataset]
    for defense in ("clm", "clm-adv"):
        steps = images / numbers.recipe(defense).batch_size
        assert steps >= numbers.defenses[defense]["period"]


@pytest.mark.parametrize("budget", ["quick", "paper-short"])
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_shorter_adversarial_training_reaches_the_edge_of_the_ball(dataset, budget):
    adversary = experiment(budget, dataset).adversary
    assert adversary["steps"] * adversary["step_size"] >= adversary["eps"] * (1 - 1e-9)


@pytest.mark.filterwarnings("ignore:clean accuracy")
def test_the_paper_s_protocol_in_short_runs_end_to_end(options, monkeypatch):
    """At a hundredth of its images, 30 epochs, and seconds for each network."""
    numbers = experiment("paper-short", "cifar10")
    assert {numbers.size("ulm"), numbers.size("ulm-adv")} == {10, 4}
    assert {numbers.recipe(defense).epochs for defense in ("ulm", "clm-adv")} == {30}
    assert (numbers.defenses["clm"]["epochs"], numbers.adversary["steps"]) == (15, 10)
    images = np.random.default_rng(0).integers(256, size=(520, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(520) % 10
    hundredth = replace(
        numbers,
        recipes={
            name: replace(recipe, epochs=1, batch_size=50)
            for name, recipe in numbers.recipes.items()
        },
        defenses={**numbers.defenses, "clm": {**numbers.defenses["clm"], "epochs": 1}},
        attacks={**numbers.attacks, "pgd": {"steps": 2, "step_size": 4 / 255}},
    )
    small = replace(
        DATASETS["cifar10"],
        read=lambda _: Raw(images[:500], labels[:500], images[500:], labels[500:], "made up"),
        published=None,
        # The quicker network.
        network=lenet5,
        experiments={"paper-short": hundredth},
    )
    monkeypatch.setitem(DATASETS._entries, "cifar10", small)
    plan = Plan(stacked=True, chunk=100, dtype="float32")
    session = Session(replace(options, budget="paper-short", plan=plan))
    for defense in ("clm", "clm-adv"):
        prepared = session.prepare("cifar10", defense)
        assert prepared.trained
        (record, *_) = session.measure(prepared, "pgd", ThreatModel("Linf", 8 / 255))
        assert record.case.budget == "paper-short"
        assert record.correct.shape == (numbers.size(defense), 20)
