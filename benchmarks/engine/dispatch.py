"""The driver's loop: jobs go to idle workers, outcomes come back, failures stay where they are."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from tqdm import tqdm

from .. import tuning
from .jobs import Apart, EngineError, Event, Job, Order, Outcome
from .scheduling import Population, Scheduler

# Seconds after which the driver looks at the clock.
TICK = 1.0
# A job that has ended so many workers, without a file from any of them, is done with fewer images
# at once, for the last time.
DEATHS = 3
# Seconds without any worker after which a run gives up.
PATIENCE = 600.0
# What torch's allocators for CPUs say, which raise no error of their own.
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class Pool(Protocol):
    """Workers somewhere."""

    @property
    def device(self) -> str:
        """What a worker computes on."""

    @property
    def share(self) -> float:
        """How many devices a worker takes."""

    @property
    def room(self) -> str:
        """What a worker needs, and what there is, in words."""

    def __len__(self) -> int:
        """How many workers there is room for."""

    def idle(self, wanted: int) -> list[str]:
        """The names of workers without a job, of which so many are wanted."""

    def send(self, worker: str, order: Order) -> None:
        """Have a worker do a job."""

    def wait(self, seconds: float) -> list[tuple[str, Outcome | Event]]:
        """What workers are done with, or what befell them, after so many seconds at most."""

    def stop(self, worker: str) -> None:
        """End a worker, whatever it does; another takes its place."""

    def close(self) -> None:
        """End all workers."""


class Dispatcher:
    """Has jobs done by a pool of workers, in the caller's own thread.

    Args:
        limit: seconds after which a worker is stopped, and its job failed.
        succeeded: told of each job that was done; it returns the keys of jobs that need not be
            done any more. What it raises fails the job.
    """

    def __init__(
        self,
        pool: Pool,
        jobs: Iterable[Job],
        *,
        limit: float,
        succeeded: Callable[[Job, Outcome], Iterable[str]],
    ) -> None:
        self._pool, self._limit, self._succeeded = pool, limit, succeeded
        listed = list(jobs)
        self._scheduler = Scheduler(listed)
        # How jobs ended, by key: what they failed with, or None.
        self._over: dict[str, Exception | None] = {}
        self._running: dict[str, tuple[Job, float]] = {}
        self._held: dict[str, Population] = {}
        self._deaths: Counter[str] = Counter()
        self._broken: EngineError | None = None
        self._tuned = tuning.keep({})
        self._last_seen, self._shown = time.monotonic(), -TICK
        self._cells = {job.key for job in listed if job.cell}
        self._bar = tqdm(
            total=len(self._cells), unit="cell", desc="cells", leave=False, disable=None
        )

    def finish(self, key: str) -> None:
        """Work until a job has ended; raise what it failed with."""
        # What the driver did in the meantime was no waiting for workers.
        self._last_seen = time.monotonic()
        while key not in self._over:
            if self._broken:
                raise self._broken
            try:
                self._turn()
            except EngineError as error:
                # No worker will ever come: every case says so at once.
                self._broken = error
        if failure := self._over[key]:
            raise failure

    def close(self) -> None:
        """Take the progress from the terminal."""
        self._bar.close()

    def _turn(self) -> None:
        """Give work to who is idle, and see to what has happened."""
        for worker in self._pool.idle(len(self._scheduler)):
            if job := self._scheduler.take(self._held.get(worker)):
                smaller = self._deaths[job.key] >= DEATHS
                try:
                    self._pool.send(worker, Order(job=job, tuned=self._tuned, smaller=smaller))
                    self._running[worker] = job, time.monotonic()
                except Exception as error:
                    self._failed(job, error)
        for worker, outcome in self._pool.wait(TICK):
            job, _ = self._running[worker]
            if outcome is Event.PROGRESS:
                del self._deaths[job.key]
                continue
            del self._running[worker]
            try:
                self._ended(job, worker, outcome)
            except Exception as error:
                # What cannot be written here, say: it is this job's, whatever case waits.
                self._failed(job, error)
        now = time.monotonic()
        for worker, (job, since) in list(self._running.items()):
            if now - since > self._limit:
                self._pool.stop(worker)
                del self._running[worker]
                told = f"{job.name} took longer than {self._limit:g} s; --time-limit allows more"
                self._failed(job, EngineError(told))
        if self._running or not self._scheduler:
            self._last_seen = now
        elif now - self._last_seen > PATIENCE:
            raise EngineError(f"no worker has started within {PATIENCE:g} s: {self._pool.room}")
        self._show(now)

    def _ended(self, job: Job, worker: str, outcome: Outcome | Event) -> None:
        """Take over what a worker made, or have it made again."""
        self._held.pop(worker, None)
        if outcome is Event.NODE_LOST:
            self._scheduler.restore(job)
            return
        if not isinstance(outcome, Outcome) or _no_memory(outcome.error):
            self._died(job, worker, outcome.error if isinstance(outcome, Outcome) else None)
            return
        self._held[worker] = job.population
        for text in outcome.warnings:
            warnings.warn(text, stacklevel=2)
        if outcome.tuned.keys() - self._tuned.keys():
            self._tuned = tuning.keep(outcome.tuned)
        if outcome.error:
            self._failed(job, outcome.error)
            return
        if isinstance(outcome.value, Apart):
            self._scheduler.add(job.split(outcome.value))
            return
        for key in [*self._succeeded(job, outcome), job.key]:
            self._over[key] = None
            self._scheduler.done(key)

    def _failed(self, job: Job, error: Exception) -> None:
        """Fail a job, and what needs it, with the same error."""
        for key in self._scheduler.drop(job.key):
            self._over[key] = error

    def _died(self, job: Job, worker: str, error: Exception | None) -> None:
        """Do a job again elsewhere, unless it has ended too many workers."""
        self._deaths[job.key] += 1
        deaths = self._deaths[job.key]
        if deaths <= DEATHS:
            self._scheduler.restore(job)
            if deaths == DEATHS:
                how = "with a quarter of the images at once" if job.cell else "from its checkpoint"
                told = f"{job.name} has ended {deaths} workers: once more, {how}"
                warnings.warn(told, stacklevel=2)
            return
        told = f"{job.name} ended {deaths} workers, the last of them {worker}: out of memory?"
        self._failed(job, EngineError(f"{told} ({error})" if error else told))

    def _show(self, now: float) -> None:
        """The state of the whole run, where there is a terminal."""
        if self._bar.disable or now - self._shown < TICK:
            return
        self._shown = now
        left = self._scheduler.seconds() / max(1, len(self._pool))
        end = time.localtime(time.time() + left)
        told = time.strftime("end %H:%M" if left < 12 * 3600 else "end %a %H:%M", end)
        if self._running:
            worker, (job, _) = min(self._running.items(), key=lambda item: item[1][1])
            told += f", {len(self._running)} running, {job.name} on {worker} for longest"
        self._bar.set_postfix_str(told, refresh=False)
        self._bar.n = len(self._cells & self._over.keys())
        self._bar.refresh()


def _no_memory(error: Exception | None) -> bool:
    """Whether a job failed for want of memory, of a GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(told in str(error) for told in NO_MEMORY)
