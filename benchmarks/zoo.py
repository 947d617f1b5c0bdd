"""Models of RobustBench's zoo as defenses: populations of one, loaded by that library."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
import sys
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from ..attacks.threat_model import Norm
from ..defenses import DEFENSES, Defense
from ..leaderboard.published import sources
from .datasets import DATASETS, DatasetEntry

INSTALL = "pip install -e '.[robustbench]'"
REPAIR = "pip install --force-reinstall --no-deps robustbench==1.1.1"


def register_zoo(name: str, norm: Norm, folder: Path) -> None:
    """Register a model that was trained for a norm as the defense `robustbench-<name>`.

    Args:
        name: RobustBench's.
        folder: of weights, laid out as that library does: `<dataset>/<norm>/<name>.pt`; what is
            missing is downloaded by it.

    Raises:
        ImportError: RobustBench cannot be used; the message says the cure.
        LookupError: none of our datasets has such a model in its zoo.
    """
    library = robustbench()
    zoo = {
        dataset.value: models
        for dataset, by_norm in import_module("robustbench.model_zoo").model_dicts.items()
        for threat_model, models in by_norm.items()
        if threat_model.value == norm and dataset.value in DATASETS
    }
    datasets = tuple(dataset for dataset in zoo if name in zoo[dataset])
    if not datasets:
        near = difflib.get_close_matches(name, {n for models in zoo.values() for n in models}, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise LookupError(f"no model {name!r} for {norm} on {', '.join(zoo)} in the zoo{hint}")

    # Its arguments become part of the record; from the name the page finds what was published.
    def load(
        data: DatasetEntry, *, robustbench: str = name, trained_for: Norm = norm
    ) -> list[nn.Module]:
        try:
            return [library.load_model(robustbench, folder, data.name, trained_for)]
        except Exception as error:
            first, *_ = str(error).splitlines() or [type(error).__name__]
            where = folder / data.name / trained_for / f"{robustbench}.pt"
            raise ValueError(f"RobustBench cannot load or download {where} ({first})") from error

    models = sources.robustbench()["models"]
    reference = next((model["link"] for model in models if model["id"] == name), "")
    slug = "robustbench-" + re.sub("[^a-z0-9]+", "-", name.lower())
    defense = Defense(
        slug,
        load=load,
        members=1,
        datasets=datasets,
        random="nothing",
        reference=reference,
        claim={"autoattack": {}},
    )
    # A second run in this process may have other options.
    DEFENSES.add(slug, defense, replace=True)


def robustbench() -> ModuleType:
    """RobustBench, and not what the wheel of torchattacks puts in its place.

    Raises:
        ImportError: it is not installed, overwritten or broken; the message says the cure.
    """
    try:
        files = distribution("robustbench").files or []
    except PackageNotFoundError:
        raise ImportError(f"robustbench is not installed: {INSTALL}") from None
    for file in files:
        if file.parts[0] == "robustbench" and file.hash:
            path = Path(str(file.locate()))
            digest = hashlib.sha256(path.read_bytes() if path.exists() else b"").digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
                raise ImportError(f"another package has changed {path}: {REPAIR}")
    try:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
            if find_spec("autoattack") is None:
                # Version 1.1.1 imports what it depends on under the name that it had before.
                for part in ("", ".state"):
                    patch.setitem(
                        sys.modules, f"autoattack{part}", import_module(f"pyautoattack{part}")
                    )
            return import_module("robustbench")
    except Exception as error:
        raise ImportError(f"robustbench cannot be imported ({error}): {INSTALL}") from error
