"""Three nodes lose a driver, a node and ten workers: 0 cells lost, 0 doubled, 0 wrong."""

import json
import re

import pytest
import torch
from randomized_defense_bench.attacks.seeding import global_seed
from randomized_defense_bench.benchmarks import tuning
from randomized_defense_bench.benchmarks.housekeeping import entries
from randomized_defense_bench.benchmarks.store import read_card
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.architectures import lenet5

from .conftest import Run

WANTED = "digits and not reproduction"
KILLS = 10


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """How to compute is settled: members of `ulm` one by one, so that they are trained apart."""
    folder = tmp_path_factory.mktemp("cache")
    with global_seed(0, torch.device("cpu")):
        population = Population([lenet5(), lenet5()])
    key = tuning._describe(population, torch.zeros(1, 1, 32, 32))
    path = folder / "randomized-defense-bench" / "tuning.json"
    path.parent.mkdir()
    path.write_text(json.dumps({key: {"stacked": False, "chunk": 50, "dtype": "float32"}}))
    return folder


@pytest.fixture(scope="module")
def serial(tmp_path_factory, cache):
    run = Run(tmp_path_factory.mktemp("serial"), cache, WANTED)
    run.printed()
    return run


def test_a_run_that_loses_driver_node_and_workers_ends_as_a_serial_one(
    nodes, serial, cache, tmp_path
):
    expected = serial.records()
    on_nodes = ("--engine", "ray", "--address", nodes.address)
    first = Run(tmp_path, cache, WANTED, *on_nodes)
    assert first.wait_for(len(expected) // 8)
    first.kill()
    before = {path: path.read_bytes() for path in first.results.glob("*.json")}
    assert 0 < len(before) < len(expected) // 2

    second = Run(tmp_path, cache, WANTED, *on_nodes)
    for kill in range(KILLS):
        count = len(before) + (len(expected) - len(before)) * (kill + 1) // (KILLS + 2)
        assert second.wait_for(count)
        if kill == KILLS // 2:
            nodes.lose_a_node()
        nodes.kill_a_worker(second)
    nodes.gain_a_node()
    printed = second.printed()

    assert second.records() == expected
    assert {path: path.read_bytes() for path in before} == before
    measured = re.search(r"cells measured: (\d+)", printed)
    assert int(measured[1]) == len(expected) - len(before)
    states = {entry.name: entry.state for entry in entries(tmp_path / "store", thorough=True)}
    stored = {e.name for e in entries(serial.folder / "store") if e.state == "finished"}
    assert states == dict.fromkeys(stored, "finished")


def test_members_travel_from_the_nodes_that_trained_them(nodes, serial, cache, tmp_path):
    """A part of the run, and nothing happens: each training ran once, and is what serial gave."""
    wanted = "digits and ulm and not reproduction and (none or fgsm) and not noise"
    run = Run(tmp_path, cache, wanted, "--engine", "ray", "--address", nodes.address)
    assert "populations trained: 2;" in run.printed()
    expected = serial.records()
    assert run.records() == {key: expected[key] for key in run.records()}
    weights, kept = (
        {card.parent.name: read_card(card)["weights_sha256"] for card in cards}
        for cards in ((f / "store").rglob("card.json") for f in (tmp_path, serial.folder))
    )
    assert len(weights) == 2
    assert weights.items() <= kept.items()


def test_an_address_without_a_cluster_is_one_line(tmp_path, cache):
    run = Run(
        tmp_path, cache, "digits and single and none", "--engine=ray", "--address=127.0.0.1:1"
    )
    with pytest.raises(AssertionError, match="--address: no cluster at '127.0.0.1:1'"):
        run.printed()
