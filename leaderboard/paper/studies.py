"""What there is to judge the paper by: for each dataset, the most thorough measurements."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..records import Record
from ..rows import Row, Setting, budget_rank, headline_radii, rows, settings
from .evidence import Evidence
from .grids import AT_LARGEST_RADIUS, Grid, Layout
from .names import RADII, SUBMODELS


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
        first = RADII.get(self.setting.dataset, (0.0,))[0]
        radii = (eps for norm, eps in headline_radii(self.records) if norm == "Linf")
        return sorted(radii, key=lambda eps: (abs(eps - first) > 1e-6, eps))

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
    # Of several of a kind the lowest seed counts, then the newest.
    seen = sorted(evidence, key=lambda one: (-one.seed, one.measured_at))
    tried = sorted(grids, key=lambda grid: (-grid.layout.seed, grid.layout.measured_at))
    found: dict[str, Study] = {}
    by_setting = settings(records)
    thorough = sorted(by_setting, key=lambda s: (budget_rank(s.budget), s.images), reverse=True)
    for setting in thorough:
        if setting.dataset in found:
            continue
        study = Study(setting, tuple(by_setting[setting]), {}, {})
        found[setting.dataset] = replace(
            study,
            evidence={one.kind: one for one in seen if _belongs(one, study)},
            grids={grid.layout.kind: grid for grid in tried if _belongs(grid.layout, study)},
        )
    return found


def _belongs(one: Evidence | Layout, study: Study) -> bool:
    """Whether evidence or a grid is of the study's data, budget, weights and radius."""
    setting, shown = study.setting, study.radii[:1]
    if one.kind in AT_LARGEST_RADIUS:
        # The paper's own radii, whatever else was ranked at.
        shown = [*study.radii[-1:], *RADII.get(setting.dataset, ())[-1:]]
    return (
        (one.dataset, one.budget) == (setting.dataset, setting.budget)
        and (one.source, one.sha256) == (setting.source, setting.sha256)
        and {*one.populations.values()} <= {record.population_sha256 for record in study.records}
        and one.eps in (None, *shown)
    )


def _preference(row: Row) -> tuple[bool, bool, bool, int, str]:
    as_paper = not any(r.case.defense_parameters.get("from_scratch") for r in row.records)
    newest = max(record.measured_at for record in row.records)
    return row.complete, as_paper, row.submodels == SUBMODELS, row.submodels, newest
