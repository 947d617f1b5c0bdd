"""The driver's session: what pytest's cases ask for is done by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from ...attacks import Attack, ThreatModel
from ...defenses import DEFENSES
from ...leaderboard.records import Case, Protocol, Record
from ..populations import Options, Prepared
from ..session import Extras, Session
from .dispatch import Dispatcher, Pool
from .estimates import Estimates
from .jobs import EngineError, Job, Outcome, Ready, training_key
from .plan import cached, plan_run
from .scheduling import Population


class EngineSession(Session):
    """Waits for workers where a `Session` trains and measures, and writes the records.

    Args:
        cases: that will be run; what cannot be planned is done here, as always.
        estimates: how long they will take.
    """

    def __init__(
        self, options: Options, cases: Sequence[pytest.Item], estimates: Estimates
    ) -> None:
        super().__init__(options)
        self.plan_of_run = plan_run(self, cases, estimates)
        self._ready = dict(self.plan_of_run.populations)
        self._new: set[str] = set()
        self._finished: dict[Population, list[str]] = {}
        # A population without its members, and with them.
        self._loaded: tuple[Prepared, Prepared] | None = None

    @contextmanager
    def working(self, pool: Pool, *, limit: float) -> Iterator[Self]:
        """With these workers; `limit`: see `Dispatcher`."""
        jobs = self.plan_of_run.open
        self._dispatcher = Dispatcher(pool, jobs, limit=limit, succeeded=self._succeeded)
        try:
            yield self
        finally:
            self._dispatcher.close()
            pool.close()

    def prepare(self, dataset: str, defense: str) -> Prepared:
        """Load a population from the store, once workers have trained it."""
        self._finish(training_key((dataset, defense)))
        return super().prepare(dataset, defense)

    def await_population(self, dataset: str, defense: str) -> Prepared:
        """A population without its members, once workers have it ready; else as `prepare`."""
        if not self._finish(training_key((dataset, defense))):
            return super().prepare(dataset, defense)
        return self._ready[dataset, defense]

    def measure(
        self, prepared: Prepared, attack: str, at: ThreatModel, protocol: Protocol = "draw"
    ) -> tuple[Record, bool]:
        """The record of a cell, once a worker has measured it; see `Session.measure`."""
        case = self.case(prepared, attack, at, protocol)
        if not self._finish(case.key):
            return super().measure(prepared, attack, at, protocol)
        record = self.reusable(prepared, case, self.extras(prepared, attack, at, protocol))
        if record is None:
            raise EngineError(f"the record of {case.key} was there and is gone; run it again")
        reused = case.key not in self._new
        self._new.discard(case.key)
        return record, reused

    def measure_case(
        self, prepared: Prepared, case: Case, extras: Extras, *, attack: Attack | None = None
    ) -> tuple[Record, bool]:
        """Measure here what was not planned; see `Session.measure_case`."""
        population = prepared.dataset.name, prepared.defense
        if prepared is self._ready.get(population):
            if self._loaded is None or self._loaded[0] is not prepared:
                # Not two at once in memory.
                self._loaded = None
                self._loaded = prepared, self.prepare(*population)
            prepared = self._loaded[1]
        return super().measure_case(prepared, case, extras, attack=attack)

    def _finish(self, key: str) -> bool:
        """Have a job done that is not done already; False: none was planned."""
        planned = key in self.plan_of_run.jobs
        if planned and key not in self.plan_of_run.cached:
            self._dispatcher.finish(key)
        return planned

    def _succeeded(self, job: Job, outcome: Outcome) -> list[str]:
        """Write what was measured; say which cells of a population need not be."""
        self.trained += outcome.trained
        value = outcome.value
        if isinstance(value, Record):
            self.keep(value, self.options.results)
            self._new.add(job.key)
            self.store.remove(self.store.root.glob(f"unfinished/{job.key}-*"))
        elif isinstance(value, Ready):
            planned = self._ready[job.population]
            prepared = replace(
                planned,
                sha256=value.sha256,
                training_seconds=value.training_seconds,
                trained=value.trained,
            )
            self._ready[job.population] = prepared
            if prepared.folder:
                (prepared.folder / "checkpoint.safetensors").unlink(missing_ok=True)
                self.store.remove(self._parts(job.population))
                self._finished.pop(job.population, None)
            jobs = self.plan_of_run.jobs.values()
            cells = (cell for cell in jobs if cell.population == job.population)
            return sorted(cached(self, prepared, cells))
        return []

    def needs(self, job: Job) -> tuple[list[str], list[str]]:
        """The folders of finished populations that a job takes along, and patterns of its own."""
        dataset, defense = job.population
        begun, folder = [f"unfinished/{job.key}-*"], self._ready[job.population].folder
        if folder and not job.cell:
            parts = self._parts(job.population)
            folders = [folder, *parts] if job.member is None else [parts[job.member]]
            begun = [f"populations/{path.name}" for path in folders]
        if job.population in self._finished:
            return self._finished[job.population], begun
        finished = self._with_parents(dataset, defense)
        if folder and f"populations/{folder.name}" in finished:
            # Nothing is added to it any more.
            self._finished[job.population] = finished
        return finished, begun

    def _with_parents(self, dataset: str, defense: str) -> list[str]:
        """The folders of a population, as far as it is finished, and of those it started from."""
        folder = self.planned(dataset, defense).folder
        if folder is None:
            return []
        card = self.store.card(folder)
        parents = {*DEFENSES[defense].starts_from, *(card["parents"] if card else ())}
        folders = [name for parent in parents for name in self._with_parents(dataset, parent)]
        if (folder / "card.json").exists():
            folders.append(f"populations/{folder.name}")
        return sorted(set(folders))

    def _parts(self, population: Population) -> list[Path]:
        """Where its members lie that are trained apart."""
        prepared = self._ready[population]
        return self.parts(prepared.dataset, population[1], prepared.parameters)
