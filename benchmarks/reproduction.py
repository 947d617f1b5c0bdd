"""Measuring a record again from its seeds."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.budgets import REPRODUCED_SECONDS
from benchmarks.session import Session
from defenses.surrogate import Plan
from leaderboard import metrics
from leaderboard.records import Record

# What bits depend on beside a record's own seeds and plan.
SAME_BITS = ("device", "processor", "threads", "torch", "torchattacks", "arithmetic")


def candidates(
    records: Sequence[Record], dataset: str, budget: str, trained: Container[str]
) -> list[Record]:
    """The records that can be measured again in bearable time, by their own seconds.

    Args:
        trained: weights_sha256 of populations that need not be trained first.
    """

    def seconds(record: Record) -> float:
        training = 0.0 if record.population_sha256 in trained else record.training_seconds
        return training + record.attack_seconds

    return [
        record
        for record in records
        if (record.cell.dataset, record.cell.budget) == (dataset, budget)
        and "computation" in record.environment
        and seconds(record) <= REPRODUCED_SECONDS
    ]


def measured_again(record: Record, session: Session, results: Path) -> Record:
    """The same cell in a run with the record's seed, which computes as it did.

    Args:
        session: gives the store, the data and the device.
        results: where the new record goes.

    Raises:
        As `Session.prepare` and `Session.measure`.
    """
    cell = record.cell
    again = Session(
        replace(
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
    )
    prepared = again.prepare(cell.dataset, cell.defense)
    return again.measure(prepared, cell.attack, cell.eps, cell.protocol)[0]


def deviation(record: Record, again: Record) -> str:
    """In what the second measurement contradicts the first, or nothing.

    On a CPU of the same kind with the same versions, weights and all answers must be the same;
    elsewhere the new MRA must lie in the first one's interval.
    """
    if again.cell.key != record.cell.key:
        return f"the suite measures another cell by now: {again.cell.key}"
    here, there = again.environment, record.environment
    if here["device"] == "cpu" and all(here.get(k) == there.get(k) for k in SAME_BITS):
        if again.population_sha256 != record.population_sha256:
            return "training gave other weights"
        differing = int((again.correct != record.correct).sum())
        return f"{differing} of {record.correct.size} answers differ" if differing else ""
    score = metrics.score([record.correct])
    if score.low <= again.mra <= score.high:
        return ""
    return f"MRA {again.mra:.4f} is outside {score.low:.4f} to {score.high:.4f}"
