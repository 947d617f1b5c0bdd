import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from randomized_defense_bench.attacks import ATTACKS, ThreatModel, registry
from randomized_defense_bench.benchmarks.datasets import DATASETS, experiment, register_dataset
from randomized_defense_bench.benchmarks.experiment import standard
from randomized_defense_bench.benchmarks.session import Options, Session
from randomized_defense_bench.defenses import DEFENSES, Recipe
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.leaderboard.rows import BUDGETS

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

    assert [experiment(budget, "svhn").radii for budget in BUDGETS] == [{"Linf": (8 / 255,)}] * 3
    folders = {name: tmp_path / name for name in ("data_root", "store", "results")}
    session = Session(Options(budget="smoke", run="test", **folders))
    prepared = session.prepare("svhn", "single")
    assert prepared.dataset.test_images.shape == (16, 3, 32, 32)
    assert session.measure(prepared, "pgd", ThreatModel("Linf", 8 / 255))[0].headline


def test_a_dataset_lacks_no_budget():
    recipe = Recipe(optimizer="adam", learning_rate=1e-3, epochs=5, batch_size=100)
    numbers = standard(radii={"Linf": (0.3,)}, step_size=0.01, recipe=recipe)
    del numbers["quick"]
    with pytest.raises(ValueError, match="'mine' has experiments for smoke, paper; expected smoke"):
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
    assert numbers.attacks.keys() <= set(ATTACKS)
    assert numbers.defenses.keys() <= set(DEFENSES)
    for norm, radii in numbers.radii.items():
        assert max(numbers.sweep_radii[norm]) > max(radii)
    images = numbers.train_images or {"digits": 1437, "mnist": 60_000, "cifar10": 50_000}[dataset]
    for defense in ("clm", "clm-adv"):
        steps = images / numbers.recipe(defense).batch_size
        assert steps >= numbers.defenses[defense]["period"]


@pytest.mark.parametrize("dataset", list(DATASETS))
def test_shorter_adversarial_training_reaches_the_edge_of_the_ball(dataset):
    adversary = experiment("quick", dataset).adversary
    assert adversary["steps"] * adversary["step_size"] >= adversary["eps"] * (1 - 1e-9)
