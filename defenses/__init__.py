"""How a population is made: architectures, training, counter-linking, and the registry."""

import randomized_defense_bench  # noqa: F401 (see its repository.py)
from defenses import clm as clm
from defenses import noise as noise
from defenses import resize_pad as resize_pad
from defenses import ulm as ulm
from defenses.population import AveragedEnsemble, Population
from defenses.registry import DEFENSES, Defense, register_checkpoint, register_defense
from defenses.training import Recipe, Task, train

DEFENSES.load_plugins()

__all__ = [
    "DEFENSES",
    "AveragedEnsemble",
    "Defense",
    "Population",
    "Recipe",
    "Task",
    "register_checkpoint",
    "register_defense",
    "train",
]
