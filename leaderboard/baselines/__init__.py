"""Published figures, shown as published: each file names its source, commit and date."""

import json
from dataclasses import dataclass, fields
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

    def paper_mra(self, dataset: str, defense: str, attack: str, eps: float) -> float | None:
        """The paper's MRA in [0, 1], or None where it has none."""
        tables = self.paper["tables"]
        rows = {"none": tables["1"].get(dataset, {})} if attack == "none" else {}
        for table in tables.values() if attack != "none" else ():
            if table.get("dataset") == dataset and abs(Fraction(str(table["eps"])) - eps) < 1e-6:
                rows = table["rows"]
        percent = rows.get(attack, {}).get(defense)
        return None if percent is None else percent / 100


def load() -> Baselines:
    """The figures that come with the package."""
    names = (field.name for field in fields(Baselines))
    return Baselines(
        **{n: json.loads((files(__package__) / f"{n}.json").read_text("utf-8")) for n in names}
    )
