"""What there is to judge the paper by: for each dataset, the most thorough measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from leaderboard.paper.evidence import Evidence
from leaderboard.paper.grids import AT_LARGEST_RADIUS, Grid, Layout
from leaderboard.paper.names import RADII, SUBMODELS
from leaderboard.records import Record
from leaderboard.rows import Row, Setting, budget_rank, headline_radii, rows, settings


@dataclass(frozen=True)
class Study:
    """One dataset under the largest budget that it was measured with.

    Attributes:
        evidence, grids: by kind, of populations that the records are of.
    """

    setting: Setting
    records: tuple[Record, ...]
    evidence: Mapping[str, Evidence]
    grids: Mapping[str, Grid]

    @property
    def obstacle(self) -> str:
        """Why the paper's numbers cannot be judged by this study, or nothing."""
        budget = "" if self.setting.budget == "paper" else f"{self.setting.budget} budget"
        images = "" if self.setting.source.startswith("torchvision") else "other images"
        return ", ".join(filter(None, (budget, images)))

    @cached_property
    def radii(self) -> list[float]:
        """The Linf radii of the ranking: the paper's first, then from small to large."""
        return _radii(self.setting.dataset, self.records)

    def row(self, defense: str, eps: float) -> Row | None:
        """A defense's row at an Linf radius; for clean images, at 0, the one at its first.

        Of several with other parameters or sizes: a complete one, retrained as the paper's is, of
        the paper's size or else of most submodels, the newest.
        """
        attacked = {r.case.eps for r in self.records if r.case.defense == defense} - {0.0}
        near = [radius for radius in self.radii if radius in attacked]
        if eps > 0:
            near = [radius for radius in near if abs(radius - eps) < 1e-6]
        if not near:
            return None
        found = [row for row in self._rows[near[0]] if row.defense == defense]
        return max(found, key=_preference, default=None)

    @cached_property
    def _rows(self) -> dict[float, list[Row]]:
        return {eps: rows(self.records, "Linf", eps) for eps in self.radii}


def studies(
    records: Iterable[Record], evidence: Iterable[Evidence] = (), grids: Iterable[Grid] = ()
) -> dict[str, Study]:
    """The study of each dataset: the largest budget, then the most images."""
    by_dataset: dict[str, tuple[Setting, list[Record]]] = {}
    for setting, measured in settings(records).items():
        kept = by_dataset.get(setting.dataset)
        if kept is None or _thoroughness(setting) > _thoroughness(kept[0]):
            by_dataset[setting.dataset] = (setting, measured)
    seen = sorted(evidence, key=lambda one: (-one.seed, one.measured_at))
    tried = sorted(grids, key=lambda grid: (-grid.layout.seed, grid.layout.measured_at))
    return {
        dataset: Study(
            setting,
            tuple(measured),
            {one.kind: one for one in seen if _belongs(one, setting, measured)},
            {grid.layout.kind: grid for grid in tried if _belongs(grid.layout, setting, measured)},
        )
        for dataset, (setting, measured) in by_dataset.items()
    }


def _radii(dataset: str, records: Iterable[Record]) -> list[float]:
    first = RADII.get(dataset, (0.0,))[0]
    radii = (eps for norm, eps in headline_radii(records) if norm == "Linf")
    return sorted(radii, key=lambda eps: (abs(eps - first) > 1e-6, eps))


def _thoroughness(setting: Setting) -> tuple[int, int]:
    return budget_rank(setting.budget), setting.images


def _belongs(one: Evidence | Layout, setting: Setting, measured: Sequence[Record]) -> bool:
    """Whether evidence or a grid is of the records' data, budget, weights and radius."""
    weights = {record.population_sha256 for record in measured}
    radii = _radii(setting.dataset, measured)
    shown = radii[:1]
    if one.kind in AT_LARGEST_RADIUS:
        # The paper's own radii, whatever else was ranked at.
        shown = [*radii[-1:], *RADII.get(setting.dataset, ())[-1:]]
    eps = one.eps if isinstance(one, Layout) else one.parameters.get("eps")
    return (
        (one.dataset, one.budget) == (setting.dataset, setting.budget)
        and (one.source, one.sha256) == (setting.source, setting.sha256)
        and set(one.populations.values()) <= weights
        and eps in (None, *shown)
    )


def _preference(row: Row) -> tuple[bool, bool, bool, int, str]:
    as_paper = not any(r.case.defense_parameters.get("from_scratch") for r in row.records)
    newest = max(record.measured_at for record in row.records)
    return row.complete, as_paper, row.submodels == SUBMODELS, row.submodels, newest
