"""Timings: what the suite's own work costs, beside other tools on the same machine in one run."""

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from ..files import Name, Sealed

Figure = Annotated[float, msgspec.Meta(ge=0)]


class Timing(Sealed, frozen=True, kw_only=True):
    """One piece of work, timed in turn with others' ways to do it.

    Attributes:
        budget: says how much was timed; work, note: what the suite did, and how; unit: of figures.
        suite: its figure, the median of the rounds, "ours" in files; others: by what was done
            instead; growth: of the suite's by how much work there was, such as "n = 5".
    """

    name: Name
    budget: Name
    work: str
    unit: str
    suite: Figure = msgspec.field(name="ours")
    others: Mapping[str, Figure] = {}
    growth: Mapping[str, Figure] = {}
    note: str = ""
    measured_at: str
    environment: Mapping[str, str]

    FOLDER = "speed"

    @property
    def key(self) -> str:
        """Its name, different for each device."""
        device = re.sub(r"[^a-z0-9]+", "-", self.environment["device"].lower()).strip("-")
        return f"{self.name}-{self.budget}-{device}"

    @property
    def machine(self) -> str:
        """What it was measured on and how thoroughly, in words."""
        where = self.environment
        cpu = [where["processor"], f"{where['threads']} threads"] * (where["device"] == "cpu")
        return ", ".join(
            [where["device"], *cpu, f"torch {where['torch']}", f"{self.budget} budget"]
        )

    def check(self) -> None:
        """Raise ValueError where the machine is not described."""
        if missing := {"device", "processor", "threads", "torch"} - self.environment.keys():
            raise ValueError(f"its environment lacks {', '.join(sorted(missing))}")
