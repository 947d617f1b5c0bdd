"""What there is to judge the paper by: for each dataset, the most thorough measurements."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..board import Board, Entry, Ranking, Section
from ..gates import Gate
from ..rows import Setting, budget_rank
from .evidence import Evidence
from .grids import AT_LARGEST_RADIUS, Grid, Layout
from .names import RADII, SUBMODELS


@dataclass(frozen=True, eq=False)
class Study:
    """One dataset under the largest budget that it was measured with.

    Attributes:
        all_evidence, all_grids: of which some may be of other populations.
    """

    section: Section
    all_evidence: Iterable[Evidence] = ()
    all_grids: Iterable[Grid] = ()

    @property
    def setting(self) -> Setting:
        """Its data and budget."""
        return self.section.setting

    @property
    def obstacle(self) -> str:
        """Why the paper's numbers cannot be judged by this study, or nothing."""
        budget = "smoke budget" if self.setting.budget == "smoke" else ""
        images = "" if self.setting.source.startswith("torchvision") else "other images"
        return ", ".join(filter(None, (budget, images)))

    @property
    def in_kind(self) -> bool:
        """Whether networks are smaller than the paper's, or trained for less: all is in kind."""
        return self.setting.budget != "paper"

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """By kind; of several the lowest seed counts, then the newest."""
        last_counts = sorted(self.all_evidence, key=lambda e: (-e.seed, e.measured_at))
        return {e.kind: e for e in last_counts if self._belongs(e)}

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """By kind; of several the lowest seed counts, then the newest."""
        last_counts = sorted(self.all_grids, key=lambda g: (-g.layout.seed, g.layout.measured_at))
        return {g.layout.kind: g for g in last_counts if self._belongs(g.layout)}

    @cached_property
    def rankings(self) -> list[Ranking]:
        """In Linf: at the paper's first radius, then from small to large."""
        first = RADII.get(self.setting.dataset, (0.0,))[0]
        linf = (ranking for ranking in self.section.rankings if ranking.norm == "Linf")
        return sorted(linf, key=lambda at: (abs(at.eps - first) > 1e-6, at.eps))

    @property
    def radii(self) -> list[float]:
        """Those of the rankings."""
        return [ranking.eps for ranking in self.rankings]

    def entry(self, defense: str, eps: float) -> Entry | None:
        """A defense's row at an Linf radius; for clean images, at 0, the one at its first.

        Of several with other parameters or sizes: a complete one, retrained as the paper's is, of
        the paper's size or else of most submodels, the newest.
        """
        attacked = {r.case.eps for r in self.section.records if r.case.defense == defense} - {0.0}
        near = [at for at in self.rankings if at.eps in attacked]
        if eps > 0:
            near = [at for at in near if abs(at.eps - eps) < 1e-6]
        entries = [entry for at in near[:1] for entry in at.entries]
        named = (entry for entry in entries if entry.row.defense == defense)
        return max(named, key=_preference, default=None)

    def _belongs(self, measured: Evidence | Layout) -> bool:
        """Whether evidence or a grid is of the study's data, budget, weights and radius."""
        setting, shown = self.setting, self.radii[:1]
        if measured.kind in AT_LARGEST_RADIUS:
            # The paper's own radii, whatever else was ranked at.
            shown = [*self.radii[-1:], *RADII.get(setting.dataset, ())[-1:]]
        weights = {record.population_sha256 for record in self.section.records}
        return (
            (measured.dataset, measured.budget) == (setting.dataset, setting.budget)
            and (measured.source, measured.sha256) == (setting.source, setting.sha256)
            and {*measured.populations.values()} <= weights
            and measured.eps in (None, *shown)
        )


def studies(
    board: Board, evidence: Iterable[Evidence] = (), grids: Iterable[Grid] = ()
) -> dict[str, Study]:
    """The study of each dataset: the largest budget, then the most images."""

    def thorough(section: Section) -> tuple[int, int]:
        return budget_rank(section.setting.budget), section.setting.images

    by_dataset: dict[str, Study] = {}
    for section in sorted(board.sections, key=thorough, reverse=True):
        by_dataset.setdefault(section.setting.dataset, Study(section, [*evidence], [*grids]))
    return by_dataset


def outcome(gates: Iterable[Gate]) -> str:
    """All gates in a word: passed, undecided, failed, or not all run."""
    outcomes = {gate.outcome for gate in gates}
    words = {"failed": "failed", "not run": "not all run", "undecided": "undecided"}
    return next((word for known, word in words.items() if known in outcomes), "passed")


def _preference(entry: Entry) -> tuple[bool, bool, bool, int, str]:
    row = entry.row
    as_paper = not any(r.case.defense_parameters.get("from_scratch") for r in row.records)
    newest = max(record.measured_at for record in row.records)
    return row.complete, as_paper, row.submodels == SUBMODELS, row.submodels, newest
