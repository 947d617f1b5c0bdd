"""Published figures, shown as published: each file names its source, commit and date."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Baselines:
    """What others published.

    Attributes:
        paper: Tables 1-5 of the paper the suite starts from.
        robustbench: RobustBench's model files.
        published: other papers' figures at a dataset, norm and eps.
    """

    paper: dict[str, Any]
    robustbench: dict[str, Any]
    published: dict[str, Any]

    def paper_mra(self, dataset: str, attack: str, eps: float, defense: str) -> float | None:
        """The paper's MRA in [0, 1], or None where it has none."""
        tables = self.paper["tables"]
        if attack == "none":
            percent = tables["1"].get(dataset, {}).get(defense)
            return None if percent is None else percent / 100
        for table in tables.values():
            same = table.get("dataset") == dataset and "eps" in table
            if same and abs(float(Fraction(str(table["eps"]))) - eps) < 1e-6:
                percent = table["rows"].get(attack, {}).get(defense)
                return None if percent is None else percent / 100
        return None


def load() -> Baselines:
    """The figures that come with the package."""
    folder = files(__package__)
    return Baselines(
        paper=json.loads((folder / "paper.json").read_text("utf-8")),
        published=json.loads((folder / "published.json").read_text("utf-8")),
        robustbench=json.loads((folder / "robustbench.json").read_text("utf-8")),
    )
