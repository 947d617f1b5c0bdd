"""What a run would train and measure: computed from the collected cases, before anything starts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tabulate import tabulate

from ...attacks import AttackError, ThreatModel
from ...defenses import DEFENSES
from ...leaderboard.records import Protocol
from ..datasets import DatasetError
from ..populations import DefenseError, Prepared
from ..session import NoRadiusError, Session
from ..store import StoreError
from .dispatch import Pool
from .estimates import Estimates
from .jobs import Job, training_key
from .scheduling import Population, makespan

Cell = tuple[str, ThreatModel, Protocol]
# What a case says of itself when it runs; the first two wherever it runs.
ALIKE = (NoRadiusError, pytest.skip.Exception)
UNPLANNED = (*ALIKE, AttackError, DatasetError, DefenseError, StoreError, ImportError, OSError)


@dataclass(frozen=True)
class RunPlan:
    """The jobs of a run.

    Attributes:
        jobs: by key, those that have their record or population already among them.
        cases: the keys of the cells of each case, by pytest's name of it.
        populations: as planned, without weights.
        cached: the keys of what is there already.
        unplanned: why a case cannot be planned, by pytest's name of it.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    cases: dict[str, list[str]] = field(default_factory=dict)
    populations: dict[Population, Prepared] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    unplanned: dict[str, BaseException] = field(default_factory=dict)

    @property
    def open(self) -> list[Job]:
        """What is to be done."""
        return [job for key, job in self.jobs.items() if key not in self.cached]

    def report(self, pool: Pool, source: str) -> str:
        """In words and a table: what would be trained and measured by workers, for how long.

        Args:
            source: where the estimates come from.
        """
        rows = []
        for population in self.populations:
            jobs = [job for job in self.jobs.values() if job.population == population]
            cells = [job for job in jobs if job.cell]
            new = [job for job in cells if job.key not in self.cached]
            training = [job for job in jobs if not job.cell and job.key not in self.cached]
            seconds = sum(job.seconds for job in new)
            if cells or training:
                trained = _duration(sum(job.seconds for job in training)) if training else "there"
                there = len(cells) - len(new)
                rows.append(
                    [training_key(population), trained, len(new), there, _duration(seconds)]
                )
        headers = ["population", "training", "cells", "cached", "measuring"]
        hours = sum(job.seconds for job in self.open) * pool.share / 3600
        workers, device = len(pool), pool.device
        kind = "device" if "cpu" in device.lower() else "GPU"
        end = f"done in {_duration(makespan(self.open, workers))}" if workers else pool.room
        return "\n".join(
            [
                *([tabulate(rows, headers, disable_numparse=True)] if rows else []),
                f"{len(self.open)} jobs on {workers} x {device}: {hours:.2g} {kind} hours, {end}",
                source,
                *self.left_out(),
            ]
        )

    def left_out(self, *but: type[BaseException]) -> list[str]:
        """A line for each reason why cases cannot be planned, with those for which it holds.

        Args:
            but: what reasons do not count.
        """
        names: dict[str, list[str]] = defaultdict(list)
        for name, error in self.unplanned.items():
            if not isinstance(error, but):
                names[str(error)].append(name.rpartition("::")[2])
        return [f"not planned: {why} ({_listed(those)})" for why, those in names.items()]


def plan_run(session: Session, items: Iterable[pytest.Item], estimates: Estimates) -> RunPlan:
    """The plan of the collected cases; nothing is written but data that has to be downloaded.

    A case that cannot be planned, since its data is missing, say, says so itself when it runs.
    """
    plan = RunPlan()
    for item in items:
        parameters = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
        if not parameters or "population" not in parameters:
            continue
        try:
            _add(plan, session, item, parameters, estimates)
        except UNPLANNED as error:
            plan.unplanned[item.nodeid] = error
    return plan


def cached(session: Session, prepared: Prepared, cells: Iterable[Job]) -> set[str]:
    """The cells of a population that need not be measured."""
    keys = set()
    for job in cells:
        if job.cell:
            attack, at, protocol = job.cell
            case = session.case(prepared, attack, at, protocol)
            extras = session.extras(prepared, attack, at, protocol)
            if session.reusable(prepared, case, extras, look=True):
                keys.add(job.key)
    return keys


def _add(
    plan: RunPlan,
    session: Session,
    item: pytest.Item,
    parameters: dict[str, Any],
    estimates: Estimates,
) -> None:
    """Add a case, with all that it needs."""
    population = parameters["population"]
    prepared = _prepared(plan, session, population)
    cells = _cells(session, item, parameters, prepared)
    if cells:
        _add_training(plan, session, population, estimates)
    jobs = []
    for attack, at, protocol in cells:
        case = session.case(prepared, attack, at, protocol)
        job = Job(
            key=case.key,
            population=population,
            seconds=estimates.attack(case),
            needs=(training_key(population),),
            cell=(attack, at, protocol),
        )
        jobs.append(job)
        plan.cases.setdefault(item.nodeid, []).append(job.key)
    new = [job for job in jobs if job.key not in plan.jobs]
    plan.jobs.update({job.key: job for job in new})
    if prepared.sha256:
        plan.cached.update(cached(session, prepared, new))


def _prepared(plan: RunPlan, session: Session, population: Population) -> Prepared:
    """A population as planned, once: the store reads and checks its weights for it."""
    if population not in plan.populations:
        plan.populations[population] = session.planned(*population)
    return plan.populations[population]


def _add_training(
    plan: RunPlan, session: Session, population: Population, estimates: Estimates
) -> None:
    """Add a training, or loading, with the trainings that it starts from."""
    dataset, defense = population
    key = training_key(population)
    if key in plan.jobs:
        return
    chosen = DEFENSES[defense]
    prepared = _prepared(plan, session, population)
    case = session.case(prepared, "none", ThreatModel(session.options.norm, 0.0))
    parents = [(dataset, parent) for parent in chosen.starts_from]
    plan.jobs[key] = Job(
        key=key,
        population=population,
        seconds=estimates.training(case) if chosen.train else 1.0,
        needs=tuple(map(training_key, parents)),
        apart=chosen.independent and len(prepared.population) > 1,
    )
    if prepared.sha256:
        plan.cached.add(key)
    for parent in parents:
        _add_training(plan, session, parent, estimates)


class _HeardError(Exception):
    """Ends a case that was called to hear what it measures."""


def _cells(
    session: Session, item: pytest.Item, parameters: dict[str, Any], prepared: Prepared
) -> list[Cell]:
    """What a case measures: it is called with a `measure` that only listens."""
    heard: list[Cell] = []

    def listen(cases: Sequence[tuple[str, ThreatModel]], protocol: Protocol = "draw") -> None:
        heard.extend((attack, at, protocol) for attack, at in cases)
        raise _HeardError

    given = {**parameters, "session": session, "population": prepared, "measure": listen}
    function = item.function  # type: ignore[attr-defined]
    names = item._fixtureinfo.argnames  # type: ignore[attr-defined]
    if "measure" in names and given.keys() >= set(names):
        with suppress(_HeardError):
            function(**{name: given[name] for name in names})
    return heard


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=math.ceil(seconds)))
