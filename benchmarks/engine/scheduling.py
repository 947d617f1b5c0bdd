"""What is done next, how long it all takes, and how it is divided into shards."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .jobs import Job

Population = tuple[str, str]
# Seconds that loading a population and looking it over take: shorter chains count as alike.
LOADING = 1.0


class Scheduler:
    """Jobs that wait for others or are ready; the longest chain of work goes first.

    Of chains that are alike in length, within a factor of two or shorter than loading a population
    takes, a worker is given one of the population that it holds.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._jobs: dict[str, Job] = {}
        self._missing: dict[str, set[str]] = {}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        self._ranks: dict[str, float] = {}
        # By the logarithm of a rank, then by population: heaps of negated ranks and keys.
        self._ready: dict[int, dict[Population, list[tuple[float, str]]]] = {}
        self.add(jobs)

    def __len__(self) -> int:
        """How many are not done."""
        return len(self._jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs; what they need and is not among all of them counts as done."""
        new = list(jobs)
        self._jobs |= {job.key: job for job in new}
        for job in new:
            self._missing[job.key] = {key for key in job.needs if key in self._jobs}
            for key in self._missing[job.key]:
                self._dependents[key].append(job.key)
        for job in new:
            if not self._missing[job.key]:
                self.restore(job)

    def take(self, held: Population | None = None) -> Job | None:
        """A job that is ready, or None.

        Args:
            held: the population that is at hand.
        """
        if not self._ready:
            return None
        highest = max(self._ready)
        heaps = self._ready[highest]
        population = held if held in heaps else min(heaps, key=lambda name: heaps[name][0])
        _, key = heapq.heappop(heaps[population])
        if not heaps[population]:
            del heaps[population]
        if not heaps:
            del self._ready[highest]
        # What was dropped in the meantime is passed over.
        return self._jobs.get(key) or self.take(held)

    def restore(self, job: Job) -> None:
        """Make a job ready, for the first time or again."""
        rank = self._rank(job.key)
        heaps = self._ready.setdefault(math.frexp(max(rank, LOADING / 2))[1], {})
        heapq.heappush(heaps.setdefault(job.population, []), (-rank, job.key))

    def done(self, key: str) -> None:
        """Forget a job; what waited for it alone is ready."""
        self._jobs.pop(key, None)
        for dependent in self._dependents.pop(key, ()):
            self._missing[dependent].discard(key)
            if not self._missing[dependent] and dependent in self._jobs:
                self.restore(self._jobs[dependent])

    def drop(self, key: str) -> list[str]:
        """Forget a job that failed and all that need it; return their keys."""
        dropped = [key] if self._jobs.pop(key, None) else []
        for dependent in self._dependents.pop(key, ()):
            dropped += self.drop(dependent)
        return dropped

    def seconds(self) -> float:
        """Of all that is not done."""
        return sum(job.seconds for job in self._jobs.values())

    def _rank(self, key: str) -> float:
        """The seconds of the longest chain of jobs that starts with one."""
        if key not in self._ranks:
            after = [self._rank(dependent) for dependent in self._dependents.get(key, ())]
            self._ranks[key] = self._jobs[key].seconds + max(after, default=0.0)
        return self._ranks[key]


def makespan(jobs: Sequence[Job], workers: int) -> float:
    """How many seconds so many workers take, if estimates hold."""
    scheduler, now = Scheduler(jobs), 0.0
    running: list[tuple[float, int, Job]] = []
    idle: dict[int, Population | None] = dict.fromkeys(range(workers))
    while scheduler:
        for worker in list(idle):
            if job := scheduler.take(idle[worker]):
                heapq.heappush(running, (now + job.seconds, worker, job))
                del idle[worker]
        now, worker, job = heapq.heappop(running)
        scheduler.done(job.key)
        idle[worker] = job.population
    return now


def shards(
    cases: Mapping[str, Sequence[str]], jobs: Mapping[str, Job], count: int
) -> dict[str, int]:
    """Which of `count` shards, from 0, each case belongs to; the same whoever asks.

    Cases that share a cell stay together, so that no cell is measured twice. The longest go first,
    each to the shard that it makes least late, the trainings that are not there yet included.

    Args:
        cases: the keys of the cells that each case measures, by the case's name.
        jobs: all of them, by key, what they need included.
    """
    together: dict[str, str] = {}
    units: dict[str, list[str]] = {}
    for name, cells in cases.items():
        # The unit of a cell is named after the first case that has it.
        joined = sorted({together[cell] for cell in cells if cell in together})
        unit = joined[0] if joined else name
        units.setdefault(unit, []).append(name)
        for other in joined[1:]:
            units[unit] += units.pop(other)
        for member in units[unit]:
            together |= dict.fromkeys(cases[member], unit)
    cells_of = {unit: {c for name in units[unit] for c in cases[name]} for unit in units}
    seconds = {unit: sum(jobs[c].seconds for c in sorted(cells_of[unit])) for unit in units}
    loads, trained = [0.0] * count, [set[str]() for _ in range(count)]
    chosen: dict[str, int] = {}
    needs = {unit: _needed(cells_of[unit], jobs) for unit in units}
    whole = {u: seconds[u] + sum(jobs[key].seconds for key in sorted(needs[u])) for u in units}
    for unit in sorted(units, key=lambda unit: (-whole[unit], unit)):
        before = needs[unit]
        costs = [
            sum(jobs[key].seconds for key in sorted(before - there)) + seconds[unit]
            for there in trained
        ]
        number = min(range(count), key=lambda i: (loads[i] + costs[i], i))
        loads[number] += costs[number]
        trained[number] |= before
        chosen |= dict.fromkeys(units[unit], number)
    return chosen


def _needed(keys: Iterable[str], jobs: Mapping[str, Job]) -> set[str]:
    """All that jobs need, and what that needs in turn."""
    direct = {need for key in keys for need in jobs[key].needs if need in jobs}
    return direct | _needed(direct, jobs) if direct else direct
