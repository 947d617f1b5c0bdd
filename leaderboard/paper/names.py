"""What the paper is about: its datasets, radii, defenses, attacks and published numbers."""

import json
from fractions import Fraction
from importlib.resources import files
from typing import Any

from ..formats import format_eps

# The Linf radii that the paper attacks at, and n of its populations.
RADII = {"mnist": (0.3, 0.4), "cifar10": (8 / 255, 16 / 255)}
SUBMODELS = 10
# What reports call the datasets and the defenses.
SPELLED = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
NAMES = {
    "ulm": "ULM",
    "clm": "CLM",
    "ulm-adv": "ULM-Adv",
    "clm-adv": "CLM-Adv",
    "single": "single",
    "single-adv": "single-adv",
}
# The paper's attacker perturbs each image with one drawn submodel (Eq. 6).
CLAIM_ATTACKS = ("fgsm", "mifgsm", "pgd", "autoattack")
PAPER_ATTACKS = (*CLAIM_ATTACKS, "pgd-eot")
CASCADE = "worst-case"
# Tables 1 to 5, MRA in percent.
TABLES: dict[str, Any] = json.loads((files(__package__) / "paper.json").read_text("utf-8"))[
    "tables"
]
# An MRA within so much of the paper's reproduces it; on clean images, where five points are many
# times the errors, within less.
TOLERANCE, CLEAN_TOLERANCE = 0.05, 0.01
# The test images of MNIST, and of CIFAR-10.
PAPER_IMAGES = 10_000


def paper_mra(dataset: str, defense: str, attack: str, eps: float) -> float | None:
    """The paper's MRA in [0, 1], or None where it has none."""
    rows = {"none": TABLES["1"].get(dataset, {})} if attack == "none" else {}
    for table in TABLES.values() if attack != "none" else ():
        if table.get("dataset") == dataset and abs(Fraction(str(table["eps"])) - eps) < 1e-6:
            rows = table["rows"]
    percent = rows.get(attack, {}).get(defense)
    return None if percent is None else percent / 100


def near(attack: str, measured: float, paper: float | None) -> bool:
    """Whether the paper has a number, and a measured MRA reproduces it."""
    return paper is not None and abs(measured - paper) <= tolerance(attack)


def tolerance(attack: str) -> float:
    """Up to which difference two MRA count as alike."""
    return CLEAN_TOLERANCE if attack == "none" else TOLERANCE


def format_radius(dataset: str, eps: float) -> str:
    """A radius as the paper writes it."""
    return format_eps(eps, 1 / 255 if dataset == "cifar10" else 1)
