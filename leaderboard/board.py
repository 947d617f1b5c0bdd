"""The board: what all pages and figures show of the records, each thing computed once."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import permutations, starmap
from typing import Any

from .. import metrics
from ..metrics import Score
from . import gates
from .curves import Curve, curves, draw_curves, widest
from .drawing import Figure
from .formats import bound
from .gallery import Gallery, gallery
from .gates import Gate
from .records import Record
from .rows import Row, Setting, populations, rows, settings


@dataclass(frozen=True)
class Verdict:
    """How much of a defense's gain over the same network without the randomness survives.

    Attributes:
        word: by whole intervals *holds up*, where more than half of the claimed gain survives,
            *partly*, or *collapses*; *no gain* where none is claimed; else *undecided*.
        claimed, surviving: accuracy minus the control's, paired.
    """

    word: str
    control: "Entry"
    claimed: Score
    surviving: Score


@dataclass(frozen=True, eq=False)
class Entry:
    """A row in its ranking."""

    row: Row
    ranking: "Ranking"

    @cached_property
    def gates(self) -> list[Gate]:
        """Its checks."""
        return gates.check(self.row)

    @property
    def trusted(self) -> bool:
        """Whether a rank or a verdict may rest on it: everything was run, and no gate failed."""
        return gates.trusted(self.row, self.gates)

    @property
    def rank(self) -> str:
        """The places that it may have: `1`, `2–4`; `–`: nobody knows."""
        return "–".join(map(str, dict.fromkeys(self.ranking.ranks.get(self, ())))) or "–"

    def claimed(self, shown: Callable[[Score | None], str]) -> str:
        """The claimed accuracy, marked where attacks that are missing may lower it."""
        return bound(shown(self.row.claimed), sure=self.row.complete)

    def worst(self, shown: Callable[[Score | None], str]) -> str:
        """The worst case, marked where attacks that are missing or failed a check may lower it."""
        return bound(shown(self.row.worst), sure=self.trusted)

    @cached_property
    def gallery(self) -> Gallery | None:
        """Images that fool it; None where no record holds any."""
        return gallery(self.row)

    @property
    def random(self) -> bool:
        """Whether anything is random in an answer."""
        return self.row.submodels * self.row.draws > 1

    @cached_property
    def control(self) -> "Entry | None":
        """The same network without the randomness.

        One deterministic network all of whose parameters are the row's, too; of several the one
        that shares most, then one that is local as the row is. Of a network that says nothing of
        how it was made, as one given to `judge`, nobody knows.
        """

        def parameters(entry: Entry) -> dict[str, Any]:
            return dict(entry.row.records[0].case.defense_parameters)

        def shared(entry: Entry) -> tuple[int, bool]:
            same = entry.row.records[0].local == self.row.records[0].local
            return len(parameters(entry)), same

        fixed = (entry for entry in self.ranking.entries if not entry.random)
        own = parameters(self).items()
        alike = (e for e in fixed if parameters(e) and parameters(e).items() <= own)
        return max(alike, key=shared, default=None)

    @cached_property
    def verdict(self) -> Verdict | None:
        """None for a network without randomness, and where something was not measured."""
        if not self.random or self.control is None:
            return None
        claimed, surviving = self.ranking.leads[self, self.control]
        if claimed is None or surviving is None:
            return None
        half, word = claimed.value / 2, "undecided"
        # A stronger attack on this row could only take more of the gain.
        if self.row.complete and self.control.trusted:
            if claimed.low <= 0:
                word = "no gain"
            elif surviving.low <= 0:
                word = "collapses" if surviving.high < half else word
            elif self.trusted:
                word = "holds up" if surviving.low > half else "partly"
        return Verdict(word, self.control, claimed, surviving)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The rows of a setting at one radius."""

    section: "Section"
    norm: str
    eps: float

    @cached_property
    def entries(self) -> list[Entry]:
        """Complete rows first, by falling worst case."""
        return [Entry(row, self) for row in self.section.rows[self.norm, self.eps]]

    @cached_property
    def leads(self) -> dict[tuple[Entry, Entry], tuple[Score | None, Score | None]]:
        """By how much an entry leads another, claimed and in the worst case, paired."""
        pairs = {(a, b): (a.row, b.row) for a, b in permutations(self.entries, 2)}
        claimed = ((a.claimed_by_seed, b.claimed_by_seed) for a, b in pairs.values())
        worst = ((a.worst_by_seed, b.worst_by_seed) for a, b in pairs.values())
        leads = (starmap(metrics.shared_difference, sides) for sides in (claimed, worst))
        return dict(zip(pairs, zip(*leads, strict=True), strict=True))

    @cached_property
    def ranks(self) -> dict[Entry, tuple[int, int]]:
        """The first and the last place of each entry that may have one.

        One that an upper bound leads significantly has none, since that may be lower; nor has the
        bound itself.
        """
        wins = [pair for pair, (_, worst) in self.leads.items() if worst and worst.low > 0]
        beaten, beats = Counter(b for _, b in wins), Counter(a for a, _ in wins)
        unknown = {b for a, b in wins if not a.trusted}
        ranked = (entry for entry in self.entries if entry.trusted and entry not in unknown)
        rivals = len(self.entries)
        return {entry: (1 + beaten[entry], rivals - beats[entry]) for entry in ranked}

    @property
    def unit(self) -> float:
        """What its radius is written in multiples of."""
        return self.entries[0].row.facts.eps_unit if self.entries else 1.0


@dataclass(frozen=True, eq=False)
class Section:
    """What was measured on the same data under the same budget."""

    setting: Setting
    records: Sequence[Record]

    @cached_property
    def rankings(self) -> list[Ranking]:
        """One for each norm and radius that defenses are ranked at, the fullest first."""
        attacked = (r.case for r in self.records if r.headline and r.case.attack != "none")
        radii = sorted({(case.norm, case.eps) for case in attacked}, key=self._order)
        return [Ranking(self, norm, eps) for norm, eps in radii if self.rows[norm, eps]]

    def _order(self, at: tuple[str, float]) -> tuple[int, bool, float]:
        """First where most defenses were attacked with everything, then Linf, then the smallest."""
        norm, eps = at
        return -sum(row.complete for row in self.rows[at]), norm != "Linf", eps

    @property
    def others(self) -> list[Ranking]:
        """The rankings after the first."""
        return self.rankings[1:]

    @cached_property
    def rows(self) -> dict[tuple[str, float], list[Row]]:
        """By norm and radius, also those that nothing is ranked at."""
        known, cases = populations(self.records), [r.case for r in self.records]
        radii = sorted({(case.norm, case.eps) for case in cases if case.attack != "none"})
        return {at: rows(known, *at) for at in radii}

    @cached_property
    def swept(self) -> dict[str, list[Row]]:
        """By norm one row of each population, the one that most radii were attacked of."""
        return {
            norm: widest(row for at, rows in self.rows.items() if at[0] == norm for row in rows)
            for norm in sorted({norm for norm, _ in self.rows})
        }

    @cached_property
    def curves(self) -> list[Curve]:
        """Each defense against eps in Linf, under its authors' attacks and in the worst case."""
        return curves(self.swept.get("Linf", []))

    @property
    def curves_file(self) -> str:
        """Where its curves are drawn, under `figures/`."""
        setting = self.setting
        data = f"{setting.sha256[:8]}-{setting.images}"
        return f"curves-{setting.dataset}-{setting.budget}-{data}.svg"


class Board:
    """Records in sections, the largest budget first."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.sections = [Section(*item) for item in settings(records).items()]

    @cached_property
    def entries(self) -> list[Entry]:
        """All rows of all rankings."""
        return [e for section in self.sections for at in section.rankings for e in at.entries]

    @property
    def figures(self) -> list[Figure]:
        """What the pages show, to be drawn."""
        drawn = {s.curves_file: s.curves for s in self.sections if s.curves}
        data = {file: json.dumps([*map(asdict, curves)]).encode() for file, curves in drawn.items()}
        accuracy = [Figure(file, data[file], partial(draw_curves, drawn[file])) for file in drawn]
        return accuracy + [entry.gallery.figure for entry in self.entries if entry.gallery]

    @property
    def defenses(self) -> list[str]:
        """The names of all ranked defenses."""
        return sorted({entry.row.defense for entry in self.entries})
