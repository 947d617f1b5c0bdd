"""Runs on digits at the smoke budget; the store of a file of tests is shared by all of them."""

from dataclasses import replace

import pytest
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.populations import Options


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("paper")


@pytest.fixture
def options(folder):
    folders = {name: folder / name for name in ("data_root", "store", "results")}
    return Options(budget="smoke", run="first", **folders)


@pytest.fixture
def with_experiment(monkeypatch):
    """A function that puts numbers in place of those of digits at the smoke budget."""
    entry = DATASETS["digits"]

    def put(experiment):
        changed = replace(entry, experiments={**entry.experiments, "smoke": experiment})
        monkeypatch.setitem(DATASETS._entries, "digits", changed)

    return put
