"""How a population is made: architectures, training, counter-linking, and the registry."""

import randomized_defense_bench  # noqa: F401 (see its repository.py)

from . import adp as adp
from . import adv_bnn as adv_bnn
from . import barre as barre
from . import bat as bat
from . import clm as clm
from . import clopper_pearson as clopper_pearson
from . import ctrw as ctrw
from . import dverge as dverge
from . import gal as gal
from . import hrs as hrs
from . import ibp as ibp
from . import interval_bounds as interval_bounds
from . import kwta as kwta
from . import l2p as l2p
from . import lwta as lwta
from . import mrboost as mrboost
from . import noise as noise
from . import pni as pni
from . import resize_pad as resize_pad
from . import rna as rna
from . import rnd as rnd
from . import rpf as rpf
from . import rse as rse
from . import sap as sap
from . import smoothing as smoothing
from . import ulm as ulm
from . import wca as wca
from .checkpoint import CheckpointError, load_network
from .population import AveragedEnsemble, Population
from .registry import DEFENSES, Defense, register_checkpoint, register_defense
from .training import Recipe, Task, train

DEFENSES.load_plugins()

__all__ = [
    "DEFENSES",
    "AveragedEnsemble",
    "CheckpointError",
    "Defense",
    "Population",
    "Recipe",
    "Task",
    "load_network",
    "register_checkpoint",
    "register_defense",
    "train",
]
