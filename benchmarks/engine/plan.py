"""What a run would train and measure: computed from the collected cases, before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tabulate import tabulate

from ...attacks import ThreatModel
from ...defenses import DEFENSES
from ...leaderboard.records import Protocol
from ..populations import Prepared
from ..session import Session
from .estimates import Estimates
from .jobs import Job, training_key
from .scheduling import Population, makespan

Cell = tuple[str, ThreatModel, Protocol]


@dataclass(frozen=True)
class RunPlan:
    """The jobs of a run.

    Attributes:
        jobs: by key, those that have their record or population already among them.
        cases: the keys of the cells of each case, by pytest's name of it.
        populations: as planned, without weights.
        cached: the keys of what is there already.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    cases: dict[str, list[str]] = field(default_factory=dict)
    populations: dict[Population, Prepared] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)

    @property
    def open(self) -> list[Job]:
        """What is to be done."""
        return [job for key, job in self.jobs.items() if key not in self.cached]

    def report(self, workers: int, device: str, source: str) -> str:
        """In words and a table: what would be trained and measured, for how long.

        Args:
            source: where the estimates come from.
        """
        rows = []
        for population in self.populations:
            mine = [job for job in self.jobs.values() if job.population == population]
            cells = [job for job in mine if job.cell]
            new = [job for job in cells if job.key not in self.cached]
            training = [job for job in mine if not job.cell and job.key not in self.cached]
            seconds = sum(job.seconds for job in new)
            if cells or training:
                trained = _duration(sum(job.seconds for job in training)) if training else "there"
                there = len(cells) - len(new)
                rows.append(
                    [training_key(population), trained, len(new), there, _duration(seconds)]
                )
        headers = ["population", "training", "cells", "cached", "measuring"]
        total = sum(job.seconds for job in self.open)
        kind = "device" if "cpu" in device.lower() else "GPU"
        return "\n".join(
            [
                tabulate(rows, headers, disable_numparse=True),
                f"{len(self.open)} jobs on {workers} x {device}: {total / 3600:.2g} {kind} hours, "
                f"done in {_duration(makespan(self.open, workers))}",
                source,
            ]
        )


def plan_run(session: Session, items: Iterable[pytest.Item], estimates: Estimates) -> RunPlan:
    """The plan of the collected cases.

    A case that cannot be planned, since its data is missing, say, is none of it: it says so itself
    when it runs.
    """
    plan = RunPlan()
    for item in items:
        parameters = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
        if not parameters or "population" not in parameters:
            continue
        with suppress(Exception, pytest.skip.Exception):
            _add(plan, session, item, parameters, estimates)
    return plan


def cached(session: Session, prepared: Prepared, cells: Iterable[Job]) -> set[str]:
    """The cells of a population that need not be measured."""
    found = set()
    for job in cells:
        if job.cell:
            attack, at, protocol = job.cell
            case = session.case(prepared, attack, at, protocol)
            if session.reusable(prepared, case, **session.how(prepared, attack, at, protocol)):
                found.add(job.key)
    return found


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


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=math.ceil(seconds)))
