"""The registry of defenses: what each is made of, and whether it is trained or loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from ..attacks.registry import Registry, keyword_defaults, version_of
from .population import Population
from .training import Task


class Data(Protocol):
    """What a network must fit; a dataset's entry does."""

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""

    @property
    def classes(self) -> int:
        """K."""

    def standard_network(self) -> nn.Module:
        """The dataset's own network, untrained: (N, channels, 32, 32) -> (N, classes)."""


Build = Callable[[Data], nn.Module]
Train = Callable[..., None]
Load = Callable[..., Sequence[nn.Module]]


@dataclass(frozen=True)
class Defense:
    """A way to make a population: it trains freshly built members, or loads finished ones.

    Attributes:
        train: `f(population, task, **parameters) -> None`, which trains the freshly initialised
            population in place; None: it loads.
        load: `f(data, **parameters) -> modules`; None: it trains.
        build: `f(data)` makes one untrained member; None: the dataset's own network.
        members: n; None: the budget's.
        draws: where members are random in themselves, how many fresh passes of each estimate an
            expectation, if the budget allows as many; 1: members are deterministic.
        probabilities: with which members are drawn; None: uniform.
        datasets: on which it makes sense; None: on all.
        random: what is random in an answer, in words.
        reference: its paper.
        claim: the attacks by which its authors measure it, each with those of its numbers that are
            theirs rather than the budget's: `pgd` attacks one draw, held fixed, `pgd-eot` the mean
            over `draws` fresh ones at every step. None: all of kind "authors" that attack one draw.
        certificate: the name of the one that it is trained for; None: none bounds its accuracy.
        field: it is of other papers: its cases run where `-k` says its name or `field`.
        starts_from: the defenses whose populations it loads: several devices train these first.
        independent: a member's training depends on the seed and its number alone, so that several
            devices may train one each.
        version: raised when a change of the code changes results; part of a population's key.
            Without one, every change of the file counts.
    """

    name: str
    train: Train | None = None
    load: Load | None = None
    build: Build | None = None
    members: int | None = None
    draws: int = 1
    probabilities: Sequence[float] | None = None
    datasets: tuple[str, ...] | None = None
    random: str = "which network answers"
    reference: str = ""
    claim: Mapping[str, Mapping[str, Any]] | None = None
    certificate: str | None = None
    field: bool = False
    starts_from: tuple[str, ...] = ()
    independent: bool = False
    version: int | str = ""

    def __post_init__(self) -> None:
        version = self.version or version_of(self.train, self.load, self.build)
        object.__setattr__(self, "version", version)

    @property
    def adversarial(self) -> bool:
        """Whether it trains on examples of a PGD adversary, whose numbers it takes."""
        adversary = {"eps", "step_size", "steps"}
        return (
            self.train is not None and adversary <= inspect.signature(self.train).parameters.keys()
        )

    def parameters(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments it is called with: its own defaults, then the overrides."""
        function = self.train or self.load
        return keyword_defaults(function) | overrides if function else overrides

    def run_training(self, population: Population, task: Task, parameters: dict[str, Any]) -> None:
        """Train a population in place; LookupError: the defense loads its members."""
        if self.train is None:
            raise LookupError(f"defense {self.name!r} loads its members; it cannot be trained")
        self.train(population, task, **parameters)


DEFENSES: Registry[Defense] = Registry("defense")


def register_defense(name: str, **facts: Any) -> Callable[[Train], Train]:
    """Decorator that registers a training function; see `Defense` for the facts."""

    def register(train: Train) -> Train:
        DEFENSES.add(name, Defense(name, train=train, **facts))
        return train

    return register


def register_checkpoint(
    name: str, *, datasets: tuple[str, ...], members: int = 1, **facts: Any
) -> Callable[[Load], Load]:
    """Decorator that registers a function that loads members; see `Defense` for the facts."""

    def register(load: Load) -> Load:
        DEFENSES.add(name, Defense(name, load=load, datasets=datasets, members=members, **facts))
        return load

    return register
