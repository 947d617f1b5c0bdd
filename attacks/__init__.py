"""How x becomes x': attacks, their registry, and the threat model they must obey."""

import randomized_defense_bench  # noqa: F401 (see its repository.py)
from attacks import autoattack as autoattack
from attacks import cascade as cascade
from attacks import population as population
from attacks import published as published
from attacks.craft import AttackError, Crafted, craft
from attacks.registry import ATTACKS, Attack, register_attack
from attacks.threat_model import ThreatModel, parse_eps

ATTACKS.load_plugins()

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackError",
    "Crafted",
    "ThreatModel",
    "craft",
    "parse_eps",
    "register_attack",
]
