"""What counts as the same number again."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.reproduction import candidates, deviation, measured_again
from benchmarks.session import Options, Session
from leaderboard.records import Record


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduction")
    options = Options(
        budget="smoke",
        data_root=folder / "data",
        store=folder / "store",
        results=folder / "results",
        run="first",
        seed=3,
    )
    return Session(options)


@pytest.fixture(scope="module")
def record(session) -> Record:
    return session.measure(session.prepare("digits", "ulm"), "pgd", 0.25)[0]


def test_a_record_is_measured_again_from_its_seed_in_another_store(session, record, tmp_path):
    other = Session(replace(session.options, store=tmp_path / "store", seed=0, run="second"))
    again = measured_again(record, other, tmp_path / "results")
    assert deviation(record, again) == ""
    assert (again.cell.seed, again.environment["computation"]) == (
        3,
        record.environment["computation"],
    )
    assert not (session.options.results / f"{record.cell.key}.json").samefile(
        tmp_path / "results" / f"{record.cell.key}.json"
    )


def changed(record, count):
    correct = record.correct.copy()
    correct.flat[:count] ^= True
    return replace(record, correct=correct)


def test_on_the_same_machine_one_answer_is_too_many(record):
    assert deviation(record, changed(record, 1)) == "1 of 100 answers differ"
    other = replace(record, population_sha256="0" * 64)
    assert deviation(record, other) == "training gave other weights"


def test_elsewhere_the_number_must_lie_in_its_interval(record):
    elsewhere = {**record.environment, "processor": "another"}
    assert deviation(record, replace(changed(record, 1), environment=elsewhere)) == ""
    far = replace(record, correct=np.zeros_like(record.correct), environment=elsewhere)
    right = replace(record, correct=np.ones_like(record.correct))
    assert "is outside" in deviation(right, far)


def test_another_cell_is_no_reproduction(record):
    other = replace(record, cell=replace(record.cell, seed=4))
    assert "another cell" in deviation(record, other)


def test_candidates_are_of_the_budget_and_take_bearable_time(record):
    slow = replace(record, training_seconds=1e4)
    old = replace(record, environment={})
    assert candidates([record, slow, old], "digits", "smoke", ()) == [record]
    assert candidates([record], "digits", "quick", ()) == []
    assert candidates([record], "mnist", "smoke", ()) == []


def test_training_takes_no_time_where_the_population_is_there(record):
    slow = replace(record, training_seconds=1e4)
    assert candidates([slow], "digits", "smoke", {record.population_sha256}) == [slow]
    slow = replace(record, attack_seconds=1e4)
    assert candidates([slow], "digits", "smoke", {record.population_sha256}) == []
