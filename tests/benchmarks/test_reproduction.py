"""What counts as the same number again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.environment import environment
from randomized_defense_bench.benchmarks.populations import Options
from randomized_defense_bench.benchmarks.reproduction import (
    all_seeds,
    candidates,
    deviation,
    measured_again,
)
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.leaderboard.records import Record


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    places = ("data_root", "store", "results")
    folders = {name: tmp_path_factory.mktemp("reproduction") / name for name in places}
    return Session(Options(budget="smoke", run="first", seed=3, **folders))


@pytest.fixture(scope="module")
def record(session) -> Record:
    return session.measure(session.prepare("digits", "ulm"), "pgd", ThreatModel("Linf", 0.25))[0]


def test_a_record_is_measured_again_from_its_seed_in_another_store(session, record, tmp_path):
    other = Session(replace(session.options, store=tmp_path / "store", seed=0, run="second"))
    again = measured_again(record, other, tmp_path / "results")
    assert deviation(record, again, [record]) == ""
    assert again.case.seed == 3
    assert (tmp_path / "results" / f"{record.case.key}.json").exists()


def changed(record, count):
    correct = record.correct.copy()
    correct.flat[:count] ^= True
    return replace(record, correct=correct)


def test_on_the_same_machine_one_answer_is_too_many(record):
    assert deviation(record, changed(record, 1), [record]) == "1 of 100 answers differ"
    other = replace(record, population_sha256="0" * 64)
    assert deviation(record, other, [record]) == "training gave other weights"
    other = replace(record, case=replace(record.case, seed=4))
    assert "another cell" in deviation(record, other, [record])


ELSEWHERE = {"processor": "another"}


def elsewhere(record, **changes):
    return replace(record, environment={**record.environment, **ELSEWHERE}, **changes)


def with_mra(record, mra, seed):
    """A record like it, of another training seed, with that share of right answers."""
    correct = np.arange(record.correct.size).reshape(record.correct.shape) < mra * 100
    case = replace(record.case, seed=seed)
    return replace(record, case=case, correct=correct, population_sha256=f"{seed:064}")


def test_elsewhere_the_number_must_lie_in_its_interval(record):
    assert deviation(record, elsewhere(changed(record, 1)), [record]) == ""
    far = elsewhere(record, correct=np.zeros_like(record.correct))
    right = replace(record, correct=np.ones_like(record.correct))
    assert "is outside 0.9" in deviation(right, far, [right])


def test_other_weights_may_leave_what_another_training_seed_may(record):
    """30, 36 and 39 of 100: mean 35, standard deviation 4.583; 4.303 * 4.583 * (4 / 3)^(1/2)."""
    seeds = [with_mra(record, mra, seed) for seed, mra in enumerate((0.30, 0.36, 0.39))]

    def again(mra):
        return elsewhere(with_mra(record, mra, 0), population_sha256="f" * 64)

    assert deviation(seeds[0], again(0.57), seeds) == ""
    found = deviation(seeds[0], again(0.58), seeds)
    assert "outside 0.1223 to 0.5777" in found
    assert "what 3 training seeds let expect" in found
    assert "no other seed" in deviation(seeds[0], again(0.30), seeds[:1])


def test_where_all_seeds_agree_other_weights_have_the_interval_over_images(record):
    seeds = [with_mra(record, 0, seed) for seed in range(3)]
    for mra, outside in ((0.01, False), (0.99, True)):
        again = elsewhere(with_mra(record, mra, 0), population_sha256="f" * 64)
        assert ("is outside" in deviation(seeds[0], again, seeds)) == outside


def found(records, dataset="digits", budget="smoke", trained=(), **here):
    return candidates(
        records, dataset, budget, trained, {**environment(torch.device("cpu")), **here}
    )


def test_candidates_are_of_the_budget_and_take_bearable_time(record):
    slow = replace(record, training_seconds=1e4)
    old = replace(record, environment={})
    assert found([record, slow, old]) == [record]
    assert found([record], budget="quick") == []
    assert found([record], dataset="mnist") == []
    # Training takes no time where the population is there.
    assert found([slow], trained={record.population_sha256}) == [slow]
    slow = replace(record, attack_seconds=1e4)
    assert found([slow], trained={record.population_sha256}) == []


def test_elsewhere_only_what_can_be_judged_is_a_candidate(record):
    """A population of one training seed has to be at hand, since training would give another."""
    assert found([record], **ELSEWHERE) == []
    assert found([record], **ELSEWHERE, trained={record.population_sha256}) == [record]
    seeds = [record, with_mra(record, 0.5, 4)]
    assert all_seeds(record, seeds) == seeds
    assert found(seeds, **ELSEWHERE) == seeds
