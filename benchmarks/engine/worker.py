"""What a worker does with an order, wherever it runs."""

from __future__ import annotations

import pickle
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...leaderboard.records import Record
from .. import tuning
from ..datasets import Dataset
from ..experiment import Variation
from ..populations import Options, Prepared
from ..session import Session
from .jobs import Apart, EngineError, Job, Order, Outcome, Ready
from .scheduling import Population


class _Session(Session):
    """Measures what it is told to; the driver has looked for a record, and will write it."""

    def reusable(self, *_: Any, **__: Any) -> Record | None:
        """None: nothing is re-used."""

    def keep(self, record: Record, folder: Path) -> None:
        """Nothing is written."""


class Worker:
    """Trains and measures on one device; holds the population it was asked for last.

    Args:
        options: with its own device and store.
        zoo: names of RobustBench's models to register.
    """

    def __init__(self, options: Options, zoo: Sequence[str] = ()) -> None:
        for name in zoo:
            from ..zoo import register_zoo

            register_zoo(name, options.norm, options.data_root / "models")
        self._session = _Session(options)
        self._held: tuple[Population, Prepared] | None = None

    @property
    def trained(self) -> list[str]:
        """The names of the stored populations that it trained."""
        return self._session.trained

    def know(self, dataset: Dataset) -> None:
        """Take over a dataset, so that it need not be read."""
        self._session.use(dataset)

    def run(self, order: Order) -> bytes:
        """Do a job; return its `Outcome`, pickled, whatever happened."""
        tuning.learn(order.tuned)
        known = len(self.trained)
        value: Any = None
        failure: Exception | None = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = self._do(order)
            except SystemExit as error:
                # Not to end the driver, too.
                failure = EngineError("".join(traceback.format_exception(error)))
            except Exception as error:
                error.add_note("".join(traceback.format_exception(error)))
                failure = error
        outcome = Outcome(
            value=value,
            error=failure,
            trained=tuple(self.trained[known:]),
            tuned=tuning.known(),
            warnings=tuple(str(warning.message) for warning in caught),
        )
        try:
            content = pickle.dumps(outcome)
            pickle.loads(content)
        except Exception:
            told = EngineError("".join(traceback.format_exception(failure)))
            content = pickle.dumps(replace(outcome, value=None, error=told))
        return content

    def _do(self, order: Order) -> Record | Ready | Apart | None:
        job, session = order.job, self._session
        dataset, defense = job.population
        if job.member is not None:
            session.with_plan(job.plan).prepare_varied(
                dataset, Variation(defense=defense), member=job.member
            )
            return None
        if job.apart and (plan := session.apart(dataset, defense)):
            return Apart(plan=plan, members=len(session.planned(dataset, defense).population))
        prepared = self._prepared(job)
        if job.cell is None:
            return Ready(
                sha256=prepared.sha256,
                training_seconds=prepared.training_seconds,
                trained=prepared.trained,
            )
        if order.smaller:
            images = prepared.dataset.test_images[:1]
            plan = session.plan(prepared.population, images.to(session.options.device))
            session = session.with_plan(replace(plan, chunk=max(1, plan.chunk // 4)))
        return session.measure(prepared, *job.cell)[0]

    def _prepared(self, job: Job) -> Prepared:
        if self._held is None or self._held[0] != job.population:
            # Not two at once in memory.
            self._held = None
            self._held = job.population, self._session.prepare(*job.population)
        return self._held[1]
