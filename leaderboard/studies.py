"""What there is to judge the paper by: for each dataset, the most thorough measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from leaderboard.evidence import Evidence
from leaderboard.records import Record
from leaderboard.table import Row, Setting, budget_rank, rows, settings


@dataclass(frozen=True)
class Study:
    """One dataset under the largest budget that it was measured with.

    Attributes:
        evidence: by kind, on the same data under the same budget.
    """

    setting: Setting
    records: tuple[Record, ...]
    evidence: Mapping[str, Evidence]

    def row(self, defense: str, eps: float) -> Row | None:
        """A defense's row at an Linf radius; for clean images, at 0, the one at its smallest.

        A complete one if there is one, and of those the one of most submodels.
        """
        radii = sorted({r.cell.eps for r in self.records if r.cell.defense == defense} - {0.0})
        near = [radius for radius in radii if eps == 0 or abs(radius - eps) < 1e-6]
        if not near:
            return None
        mine = [r for r in rows(self.records, "Linf", near[0]) if r.defense == defense]
        return max(mine, key=lambda row: (row.complete, row.submodels), default=None)


def studies(records: Iterable[Record], evidence: Iterable[Evidence]) -> dict[str, Study]:
    """The study of each dataset: the largest budget, then the most images, drawn for each image."""
    by_dataset: dict[str, tuple[Setting, list[Record]]] = {}
    for setting, measured in settings(records).items():
        if setting.images_per_draw > 1:
            continue
        kept = by_dataset.get(setting.dataset)
        if kept is None or _thoroughness(setting) > _thoroughness(kept[0]):
            by_dataset[setting.dataset] = (setting, measured)
    listed = sorted(evidence, key=lambda one: (-one.seed, one.measured_at))
    return {
        dataset: Study(
            setting,
            tuple(measured),
            {
                one.kind: one
                for one in listed
                if (one.dataset, one.budget, one.sha256)
                == (dataset, setting.budget, setting.sha256)
            },
        )
        for dataset, (setting, measured) in by_dataset.items()
    }


def _thoroughness(setting: Setting) -> tuple[int, int]:
    return budget_rank(setting.budget), setting.images
