"""What workers are asked to do, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ...attacks import ThreatModel
from ...defenses.surrogate import Plan
from ...leaderboard.records import Protocol, Record


class Event(Enum):
    """What happens to a worker before its job is done.

    It may die of the job, or with its machine, of which the job is innocent; or a file arrives
    from it, from which another worker can go on.
    """

    DIED = "died"
    NODE_LOST = "lost with its node"
    PROGRESS = "has got on"


class EngineError(RuntimeError):
    """A job that workers could not do; the message names it and says why."""


def training_key(population: tuple[str, str]) -> str:
    """The key of the job that trains or loads a population: `dataset-defense`."""
    return "-".join(population)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A population to train or load, or a cell to measure.

    Attributes:
        key: of a cell its case's; unique.
        population: its dataset and its defense.
        seconds: an estimate.
        needs: the keys of jobs to be done before.
        cell: what to measure; None: the population is trained or loaded.
        member: train this one alone.
        plan: how to compute; None: as is fastest.
        apart: members may be trained by several workers.
    """

    key: str
    population: tuple[str, str]
    seconds: float
    needs: tuple[str, ...] = ()
    cell: tuple[str, ThreatModel, Protocol] | None = None
    member: int | None = None
    plan: Plan | None = None
    apart: bool = False

    @property
    def name(self) -> str:
        """As people read it."""
        return self.key if self.cell else f"training {self.key}"

    def split(self, apart: Apart) -> list[Job]:
        """The trainings of each member, and this job once more, to put them together."""
        parts = [
            replace(
                self,
                key=f"{self.key} member {number}",
                seconds=self.seconds / apart.members,
                member=number,
                plan=apart.plan,
                apart=False,
            )
            for number in range(apart.members)
        ]
        keys = tuple(part.key for part in parts)
        return [*parts, replace(self, seconds=1.0, needs=keys, apart=False)]


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job, with what a worker must know to do it.

    Attributes:
        tuned: how to compute, as far as it has been measured; see `benchmarks.tuning`.
        smaller: with a quarter of the images at once.
    """

    job: Job
    tuned: Mapping[str, Mapping[str, Any]]
    smaller: bool = False


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A population that can be attacked; see `Prepared`."""

    sha256: str
    training_seconds: float
    trained: bool


@dataclass(frozen=True, kw_only=True)
class Apart:
    """A training that is better done by several workers, so many members, by this plan."""

    plan: Plan
    members: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a worker made of an order.

    Attributes:
        trained: names of the populations that it trained on the way.
        tuned: as in an order, with what it measured itself.
        warnings: what it was warned of.
    """

    value: Record | Ready | Apart | None = None
    error: Exception | None = None
    trained: tuple[str, ...] = ()
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
