"""How a population is made: architectures, training, counter-linking, and the registry."""

from defenses import clm as clm
from defenses import ulm as ulm
from defenses.population import AveragedEnsemble, Population, of_draws
from defenses.registry import DEFENSES, Defense, register_defense
from defenses.training import Recipe, Task, train

DEFENSES.load_plugins()

__all__ = [
    "DEFENSES",
    "AveragedEnsemble",
    "Defense",
    "Population",
    "Recipe",
    "Task",
    "of_draws",
    "register_defense",
    "train",
]
