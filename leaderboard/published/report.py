"""The pages on others: their figures and disputes as published, and their attacks measured here."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ... import metrics
from ...metrics import Score
from .. import records, templating
from ..board import Board, Entry, Ranking
from ..drawing import Figure
from ..pages import FIRST_LINE
from ..records import Record
from ..rows import Row, answers
from . import sources


def report(board: Board, results: Path) -> tuple[dict[str, str], list[Figure]]:
    """The pages by file name, and no figure, from the board and the records of others' attacks."""
    values = {"board": board, "compared": peers(board, records.read_all(results / "peers"))}
    names = ("PUBLISHED.md", "PEERS.md")
    return {name: templating.render(_TEMPLATES, name.lower(), **values) for name in names}, []


def peers(
    board: Board, measured: Iterable[Record]
) -> list[tuple[Entry, dict[str, tuple[Record, Score]]]]:
    """Entries with the records of others' attacks on them, and the worst case minus theirs, paired.

    Of the newest weights only, on the images of both.
    """
    by_population: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in sorted(measured, key=lambda r: r.measured_at):
        by_population.setdefault(_place(record), {})[record.case.attack] = record
    compared = []
    for entry in board.entries:
        attacked = next(r for r in entry.row.records if r.case.attack != "none")
        beside = {
            attack: (record, difference)
            for attack, record in by_population.get(_place(attacked), {}).items()
            if (difference := _above(entry.row, record))
        }
        compared += [(entry, beside)] if beside else []
    return compared


def _place(record: Record) -> tuple[object, ...]:
    case = record.case
    return case.dataset, case.budget, case.norm, case.eps, record.population_sha256


def _above(row: Row, record: Record) -> Score | None:
    seed = record.case.seed
    worst = {s: found for s, found in row.worst_by_seed.items() if s == seed}
    return metrics.shared_difference(worst, answers({seed: record}))


def published(ranking: Ranking) -> list[dict[str, Any]]:
    """Other papers' figures at a ranking's dataset, norm and radius."""
    place = ranking.section.setting.dataset, ranking.norm
    at = [f for f in sources.rows("figures") if (f["dataset"], f["norm"]) == place]
    return [figure for figure in at if abs(float(Fraction(figure["eps"])) - ranking.eps) < 1e-6]


def zoo(entries: Iterable[Entry]) -> list[tuple[Row, Mapping[str, Any], Score]]:
    """Rows of RobustBench's models, what it publishes of them at the same radius, and how far off.

    What is published is in percent, the difference a share.
    """
    models = sources.robustbench()["models"]
    by_id = {(m["dataset"], m["threat_model"], m["id"]): m for m in models}
    compared = []
    for row in (entry.row for entry in entries):
        case = next(record.case for record in row.records if record.case.attack != "none")
        named = str(case.defense_parameters.get("robustbench"))
        model = by_id.get((case.dataset, case.norm, named))
        if model and row.worst and abs(float(Fraction(model["eps"])) - case.eps) < 1e-6:
            compared.append((row, model, row.worst - model["robust"] / 100))
    return compared


_TEMPLATES = templating.templates(__package__)
_TEMPLATES.globals |= {
    "claims": sources.rows("claims"),
    "disputes": sources.rows("disputes"),
    "first_line": FIRST_LINE,
    "published": published,
    "robustbench": sources.robustbench(),
    "zoo": zoo,
}
