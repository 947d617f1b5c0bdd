"""Records of schema version 1 as version 2, answers untouched.

Version 1 knew deterministic members only, and nothing that only the registries know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leaderboard import records
from leaderboard.files import read_sealed

_CLAIM = ["fgsm", "mifgsm", "pgd", "autoattack"]
_KINDS = {
    **dict.fromkeys((*_CLAIM, "pgd-eot"), "authors"),
    **dict.fromkeys(("square-population", "square-oracle"), "queries"),
    **dict.fromkeys(("none", "noise"), "control"),
    "worst-case": "cascade",
}


def convert(folder: Path) -> int:
    """Rewrite what is of version 1 in a folder; return how many records that were.

    Raises:
        RecordError: a record that is damaged, which stays as it is; those before it are converted.
    """
    count = 0
    for path in sorted(folder.glob("*.json")):
        try:
            old = read_sealed(path)
            if old.get("schema_version") != 1:
                continue
            record = records.decode(_converted(old))
        except records.UNUSABLE as error:
            raise records.RecordError(f"{path}: not a usable record ({error})") from error
        if records.write(record, folder) != path:
            path.unlink()
        count += 1
    return count


def _converted(old: dict[str, Any]) -> dict[str, Any]:
    case = old.pop("cell")
    eps = float(case["eps"])
    del old["submodel_accuracies"]
    parameters = dict(case["attack_parameters"])
    if "step_size" in parameters and eps > 0:
        # It recorded the step that was asked for; this is the one that ran.
        least, most = eps / parameters["steps"], eps / 4
        parameters["step_size"] = min(max(parameters["step_size"], least), most)
    return {
        **old,
        "schema_version": 2,
        "case": {**case, "attack_parameters": parameters, "eps": eps},
        "facts": {
            "attack_kind": _KINDS.get(case["attack"], "population"),
            "claim": _CLAIM,
            "random": "nothing" if case["submodels"] == 1 else "which network answers",
            "reference": "arXiv:2111.10272",
            "eps_unit": 1 / 255 if case["dataset"].startswith("cifar") else 1.0,
        },
    }
