"""How x becomes x': attacks, their registry, and the threat model they must obey."""

import randomized_defense_bench  # noqa: F401 (see its repository.py)

from . import autoattack as autoattack
from . import cascade as cascade
from . import population as population
from . import published as published
from .craft import AttackError, Crafted, craft
from .registry import ATTACKS, CERTIFICATES, Attack, register_attack, register_certificate
from .threat_model import ThreatModel, parse_eps

ATTACKS.load_plugins()

__all__ = [
    "ATTACKS",
    "CERTIFICATES",
    "Attack",
    "AttackError",
    "Crafted",
    "ThreatModel",
    "craft",
    "parse_eps",
    "register_attack",
    "register_certificate",
]
