"""The registry of defenses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from attacks.registry import Registry, keyword_defaults
from defenses.population import Population
from defenses.training import Task

Build = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Defense:
    """A way to make a population.

    Attributes:
        name: its id.
        train: `f(population, task, **parameters) -> None`, which trains the freshly initialised
            population in place.
        build: `f(channels, classes)` makes one untrained submodel; None: the dataset's own
            architecture.
        version: raised when a change of the code changes results; part of a population's key.
    """

    name: str
    train: Callable[..., None]
    build: Build | None
    version: int

    def parameters(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments `train` is called with: its own defaults, then the overrides."""
        return keyword_defaults(self.train) | overrides


DEFENSES: Registry[Defense] = Registry("defense")

TrainFunction = Callable[..., None]


def register_defense(
    name: str, *, build: Build | None = None, version: int = 1
) -> Callable[[TrainFunction], TrainFunction]:
    """Decorator that registers a function as a defense; see `Defense` for the arguments."""

    def register(train: TrainFunction) -> TrainFunction:
        DEFENSES.add(name, Defense(name, train, build, version))
        return train

    return register


__all__ = ["DEFENSES", "Defense", "Population", "Task", "register_defense"]
