"""The ranking: rows that passed their checks, by what the worst case leaves."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import gates, metrics
from .formats import (
    escape,
    format_percent,
    format_points,
    format_score,
    markdown_table,
)
from .gates import Gate, Outcome
from .rows import Row

Checked = Sequence[tuple[Row, list[Gate]]]
OUTCOMES: tuple[Outcome, ...] = ("passed", "undecided", "failed", "not run")


@dataclass(frozen=True)
class Line:
    """One row of the table, its rank as shown, and the most images that any row was measured on."""

    row: Row
    gates: Sequence[Gate]
    rank: str
    most_images: int

    @property
    def bound(self) -> str:
        """What stands before a figure that more attacks may lower."""
        return "" if self.row.complete else "≤ "


@dataclass(frozen=True)
class Column:
    """A column, and what it shows of a line: to add one, add it to `COLUMNS`.

    `meaning` is for the legend; empty where the header says it all.
    """

    header: str
    meaning: str
    cell: Callable[[Line], str]


def _worst(line: Line) -> str:
    row = line.row
    if row.worst is None:
        return "–"
    images = f" on {row.worst_images:,}" if row.worst_images < line.most_images else ""
    return f"**{line.bound}{format_score(row.worst)}**{images}"


def _gain(line: Line) -> str:
    gain = line.row.gain
    if gain is None or line.row.submodels == 1:
        return "–"
    return format_points(gain.value) + (" †" if gain.low <= 0 else "")


def counted(checks: Sequence[Gate]) -> str:
    """How many gates had which outcome: `9 passed, 1 failed`."""
    counts = Counter(gate.outcome for gate in checks)
    return ", ".join(f"{counts[word]} {word}" for word in OUTCOMES if counts[word])


COLUMNS = (
    Column(
        "rank",
        "one more than the number of rows that are significantly better, image by image; = marks a "
        "tie",
        lambda line: line.rank,
    ),
    Column("defense", "", lambda line: escape(line.row.label)),
    Column("n", "how many networks", lambda line: str(line.row.submodels)),
    Column("random", "what is random in an answer", lambda line: escape(line.row.facts.random)),
    Column(
        "clean",
        "the probability that an image as it is is classified correctly",
        lambda line: format_score(line.row.score("none")),
    ),
    Column(
        "claimed",
        "robust accuracy under the attacks of the defense's authors, on one draw (for the paper: "
        "MRA, Eq. 6); the lowest of them",
        lambda line: line.bound + format_score(s) if (s := line.row.claimed) else "–",
    ),
    Column(
        "**worst case**",
        "robust accuracy under an attacker who knows everything but the draw and has, for each "
        "image, the strongest of all attacks run. Rows are ranked by it; count on this number",
        _worst,
    ),
    Column(
        "illusion",
        "claimed minus worst case",
        lambda line: format_points(line.row.illusion if line.row.complete else None),
    ),
    Column(
        "best member",
        "robust accuracy of the most robust network deployed by itself, chosen on one half of the "
        "images and scored on the other",
        lambda line: format_percent(
            s.value if line.row.submodels > 1 and (s := line.row.best_own) else None
        ),
    ),
    Column(
        "gain",
        "robust accuracy of the population minus that of its best member under the same cascade: "
        "what drawing at random buys; † where it is not significant",
        _gain,
    ),
    Column(
        "averaged",
        "robust accuracy of the same networks as one ensemble that averages probabilities, which "
        "costs n times the queries",
        lambda line: format_score(
            line.row.protocol_score("average") if line.row.submodels > 1 else None
        ),
    ),
    Column(
        "gates",
        "checks that must be run and not fail before a row is ranked; undecided where too few "
        "images were used to tell",
        lambda line: counted(line.gates),
    ),
    Column(
        "training (s)",
        "of one seed, without a population it was initialised from",
        lambda line: f"{line.row.training_seconds:.0f}",
    ),
    Column("attacks (s)", "of one seed", lambda line: f"{line.row.attack_seconds:.0f}"),
    Column("seeds", "of training", lambda line: ", ".join(map(str, line.row.seeds))),
)


def legend() -> str:
    """What the columns mean, as a list."""
    named = (column for column in COLUMNS if column.meaning)
    return "\n".join(f"- *{column.header.strip('*')}*: {column.meaning}." for column in named)


def ranking(rows: Checked, headers: Sequence[str] = ()) -> str:
    """The ranked table.

    Args:
        headers: of the columns to show; default: all.
    """
    ranked = [row for row, checks in rows if row.complete and gates.passed(checks)]
    ranks = [1 + sum(better(other, row) for other in ranked) for row in ranked]
    places = {
        id(row): f"{rank}{'=' * (ranks.count(rank) > 1)}"
        for row, rank in zip(ranked, ranks, strict=True)
    }
    most_images = max((record.case.images for row, _ in rows for record in row.records), default=0)
    columns = [column for column in COLUMNS if not headers or column.header in headers]
    lines = [Line(row, checks, places.get(id(row), "–"), most_images) for row, checks in rows]
    body = [[column.cell(line) for column in columns] for line in lines]
    return markdown_table([column.header for column in columns], body)


def of_some_seeds(row: Row) -> dict[tuple[int, ...], list[str]]:
    """The attacks and protocols that were not measured on all seeds of the row, by their seeds."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name, by_seed in sorted({**row.by_attack, **row.by_protocol}.items()):
        if by_seed.keys() < set(row.seeds):
            found.setdefault(tuple(sorted(by_seed)), []).append(name)
    return found


def better(first: Row, second: Row) -> bool:
    """Whether the first row's worst case is significantly above the second's, image by image."""
    excess = metrics.shared_difference(first.worst_by_seed, second.worst_by_seed)
    return excess is not None and excess.low > 0


def gate_details(checked: Checked) -> str:
    """Every gate of every row, with its figure."""
    headers = ["gate", *(escape(f"{row.label} (n={row.submodels})") for row, _ in checked)]
    words = {"failed": "**failed**", "not run": "–", "not applicable": "–"}
    # Not all records know of all gates.
    names = dict.fromkeys(gate.name for _, found in checked for gate in found)
    cells: dict[str, list[str]] = {name: [name] for name in names}
    for _, found in checked:
        outcomes = {g.name: f"{words.get(g.outcome, g.outcome)}: {escape(g.figure)}" for g in found}
        for name, cell in cells.items():
            cell.append(outcomes.get(name, "–"))
    return markdown_table(headers, [*cells.values()])
