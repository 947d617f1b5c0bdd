"""Measuring a record again from its seeds."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import metrics
from ..attacks import ThreatModel
from ..defenses.surrogate import Plan
from ..leaderboard.records import Record
from .experiment import REPRODUCED_SECONDS
from .session import SAME_BITS, Session


def candidates(
    records: Sequence[Record],
    dataset: str,
    budget: str,
    trained: Container[str],
    here: Mapping[str, str],
) -> list[Record]:
    """The records that can be measured again in bearable time, by their own seconds, and judged.

    Another kind of machine trains the same seed to other weights. What these leave can be judged
    where several seeds tell how far trainings differ, so that there a record of a single seed is
    none of the candidates unless its population is at hand.

    Args:
        trained: weights_sha256 of populations that need not be trained first.
        here: this machine's `environment`.
    """

    def may_be(record: Record) -> bool:
        at_hand = record.population_sha256 in trained
        seconds = record.attack_seconds + (0.0 if at_hand else record.training_seconds)
        return (
            (record.case.dataset, record.case.budget) == (dataset, budget)
            and "computation" in record.environment
            and seconds <= REPRODUCED_SECONDS
            and (
                at_hand
                or _same_bits(record.environment, here)
                or len(all_seeds(record, records)) > 1
            )
        )

    return [record for record in records if may_be(record)]


def all_seeds(record: Record, records: Sequence[Record]) -> list[Record]:
    """The records of the same cell in all its training seeds, the record itself included."""
    return [other for other in records if replace(other.case, seed=record.case.seed) == record.case]


def _same_bits(record: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether this environment computes as a record's; older records name no instructions."""
    there = {"instructions": here["instructions"], **record}
    return here["device"] == "cpu" and all(there.get(name) == here[name] for name in SAME_BITS)


def measured_again(record: Record, session: Session, results: Path) -> Record:
    """The same cell in a run with the record's seed, which computes as it did.

    The session gives the store, the data and the device; the new record goes to `results`.
    """
    case = record.case
    again = Session(
        replace(
            session.options,
            results=results,
            seed=case.seed,
            norm=case.norm,
            eps=(case.eps,) if case.eps else (),
            submodels=case.submodels,
            plan=Plan.parse(record.environment["computation"]),
            rerun=True,
        )
    )
    prepared = again.prepare(case.dataset, case.defense)
    return again.measure(prepared, case.attack, ThreatModel(case.norm, case.eps), case.protocol)[0]


def deviation(record: Record, again: Record, seeds: Sequence[Record]) -> str:
    """In what the second measurement contradicts the first, or nothing.

    On a CPU of the same kind with the same versions, weights and all answers must be the same.
    Elsewhere the new MRA must lie in the record's interval over images; if training gave other
    weights, in the hull of that and Student's prediction interval for one more training seed.

    Args:
        seeds: the records of the same cell in all its training seeds, the first one included.
    """
    if again.case.key != record.case.key:
        return f"the suite measures another cell by now: {again.case.key}"
    same_weights = again.population_sha256 == record.population_sha256
    if _same_bits(record.environment, again.environment):
        if not same_weights:
            return "training gave other weights"
        differing = int((again.correct != record.correct).sum())
        return f"{differing} of {record.correct.size} answers differ" if differing else ""
    expected, of = record.score, "its interval over images"
    low, high = expected.low, expected.high
    if not same_weights:
        if len(seeds) < 2:
            return "training gave other weights, and no other seed tells how much that may change"
        another = metrics.another_mean(np.array([one.score.value for one in seeds]), 1)
        low, high = metrics.hull(expected, another)
        of += f" and what {len(seeds)} training seeds let expect of one more"
    if low <= again.score.value <= high:
        return ""
    return f"MRA {again.score.value:.4f} is outside {low:.4f} to {high:.4f}, {of}"
