"""How x becomes x': attacks, their registry, and the threat model they must obey."""

from attacks import adaptive as adaptive
from attacks import library as library
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
