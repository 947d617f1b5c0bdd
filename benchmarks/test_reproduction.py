"""Records measured again from their seeds: on the same kind of machine the same bits."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.budgets import REPRODUCED, REPRODUCED_SECONDS
from benchmarks.conftest import failures_told
from benchmarks.datasets import DATASETS
from benchmarks.session import Session
from defenses.surrogate import Plan
from leaderboard import metrics, records
from leaderboard.records import Record

# What bits depend on beside the record's own seeds and plan.
SAME_BITS = ("device", "processor", "threads", "torch", "torchattacks")


@pytest.mark.parametrize("dataset", list(DATASETS))
def test_reproduction(
    session: Session,
    dataset: str,
    tmp_path: Path,
    terminal: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Measure three records drawn at random once more; training what the store does not hold."""
    options = session.options
    candidates = [
        record
        for record in records.read_all(options.results)
        if (record.cell.dataset, record.cell.budget) == (dataset, options.budget)
        and "computation" in record.environment
        and record.training_seconds + record.attack_seconds <= REPRODUCED_SECONDS
    ]
    if not candidates:
        pytest.skip(f"no record of {dataset}, {options.budget} budget, in {options.results}")
    for record in random.sample(candidates, min(REPRODUCED, len(candidates))):
        with failures_told("the store cannot be used: {}; --store names another"), terminal():
            again = measured_again(record, session, tmp_path)
        check(record, again)


def measured_again(record: Record, session: Session, results: Path) -> Record:
    """The same cell in a run that has the record's seed and computes as it did."""
    cell = record.cell
    options = replace(
        session.options,
        results=results,
        seed=cell.seed,
        eps=(cell.eps,) if cell.eps else (),
        submodels=cell.submodels,
        images_per_draw=cell.images_per_draw,
        clm_from_scratch=bool(cell.defense_parameters.get("from_scratch")),
        plan=Plan.parse(record.environment["computation"]),
        rerun=True,
    )
    again = Session(options)
    prepared = again.prepare(cell.dataset, cell.defense)
    return again.measure(prepared, cell.attack, cell.eps, cell.protocol)[0]


def check(record: Record, again: Record) -> None:
    """The same number where the machine is of the same kind, and within the interval elsewhere."""
    assert again.cell.key == record.cell.key, "the suite measures another cell by now"
    here, there = again.environment, record.environment
    if here["device"] == "cpu" and all(here.get(k) == there.get(k) for k in SAME_BITS):
        assert again.population_sha256 == record.population_sha256, record.cell.key
        assert (again.correct == record.correct).all(), record.cell.key
    else:
        score = metrics.score([record.correct])
        assert score.low <= again.mra <= score.high, f"{record.cell.key}: {again.mra}, was {score}"
