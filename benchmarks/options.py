"""What the command line resolved to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from attacks.threat_model import Norm
from defenses.surrogate import Plan


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run; see `pytest --help`.

    Attributes:
        norm: that defenses are attacked in.
        eps: radii to rank at in place of the budget's, or empty.
        submodels: n in place of the budget's (a defense of one member stays one), or None.
        run: identifies the run, the same for all its processes.
        plan: how to compute; None: as is fastest on this machine.
    """

    data_root: Path
    store: Path
    results: Path
    run: str
    budget: str = "quick"
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    seed: int = 0
    rerun: bool = False
    retrain: bool = False
    norm: Norm = "Linf"
    eps: tuple[float, ...] = ()
    submodels: int | None = None
    plan: Plan | None = None
