"""Populations that come with the suite are what it would train, and those of its records."""

from dataclasses import replace

import pytest
from randomized_defense_bench.benchmarks import populations
from randomized_defense_bench.benchmarks.datasets import experiment
from randomized_defense_bench.benchmarks.paths import RELEASED
from randomized_defense_bench.benchmarks.populations import Populations
from randomized_defense_bench.benchmarks.store import (
    Store,
    read_card,
    read_population,
    read_tensors,
)
from randomized_defense_bench.defenses import DEFENSES
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.rows import BUDGETS

FOLDERS = sorted(path.parent for path in RELEASED.glob("*/card.json"))
RECORDS = RELEASED.parent / "results"


def test_there_are_some():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_released_population_is_what_the_suite_would_train(folder, tmp_path):
    card = read_card(folder / "card.json")
    identity = card["identity"]
    dataset, defense = identity["dataset"], identity["defense"]
    name = f"{dataset}-{defense}-s{identity['seed']}"
    assert Store(tmp_path).folder(name, identity).name == folder.name
    by_budget = {
        budget: {
            "version": DEFENSES[defense].version,
            "submodels": DEFENSES[defense].members or numbers.size(defense),
            "recipe": numbers.recipe(defense).facts(),
            **numbers.arguments(defense),
        }
        for budget in BUDGETS
        for numbers in [experiment(budget, dataset)]
    }
    assert any({key: identity[key] for key in today} == today for today in by_budget.values())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_released_population_is_sound_and_that_of_the_records(folder):
    card, weights = read_population(folder)
    epochs = folder.glob("epoch-*.safetensors")
    assert all(read_tensors(path)[0].keys() == weights.keys() for path in epochs)
    named = f"{card['identity']['dataset']}-{card['identity']['defense']}-"
    of_it = [records.read(path) for path in RECORDS.glob(f"{named}*-s[0-9]*.json")]
    measured = {(r.case.defense, r.case.seed): r.population_sha256 for r in of_it}
    key = (card["identity"]["defense"], card["identity"]["seed"])
    assert measured[key] == card["weights_sha256"]


def test_a_released_population_is_trained_only_if_asked_for(options, monkeypatch, tmp_path):
    def prepare(store, **changes):
        changed = replace(options, store=tmp_path / store, run=store, **changes)
        return Populations(changed).prepare("digits", "single")

    first = prepare("first")
    monkeypatch.setattr(populations, "RELEASED", first.folder.parent)
    assert not prepare("second").trained
    assert prepare("third", retrain=True).trained
