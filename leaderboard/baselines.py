"""Figures that others published, shown as published: each file names its source and date."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

FOLDER = files(__package__) / "published"


@cache
def robustbench() -> dict[str, Any]:
    """RobustBench's commit and `models`, in percent; "robust" is external, else AutoAttack's."""
    content: dict[str, Any] = json.loads((FOLDER / "robustbench.json").read_text("utf-8"))
    for model in content["models"]:
        model["robust"] = model["external_accuracy"] or model["autoattack_accuracy"]
    return content


@cache
def figures(file: str = "figures") -> list[dict[str, Any]]:
    """Other papers' figures, each at a dataset, norm and eps; or "claims" of random defenses."""
    rows: list[dict[str, Any]] = json.loads((FOLDER / f"{file}.json").read_text("utf-8"))["rows"]
    return rows
