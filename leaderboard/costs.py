"""Tables of the page's section on speed and cost."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.markdown import escape, markdown_table
from leaderboard.rows import Row, seconds_a_seed
from leaderboard.speed import Timing


def verdicts(rows: Sequence[tuple[str, Row]]) -> str:
    """Seconds to the verdict on each row, named with its setting in words."""
    body = []
    for setting, row in rows:
        seconds = "–"
        if cascade := row.cascade:
            images = max(record.case.images for record in cascade.values())
            seconds = f"{seconds_a_seed(cascade):.1f} on {images:,}"
        figures = [f"{row.training_seconds:.0f}", seconds, f"{row.attack_seconds:.0f}"]
        body.append([escape(setting), escape(row.label), str(row.submodels), *figures])
    headers = ["on", "defense", "n", "training (s)", "cascade (s), on images", "all attacks (s)"]
    return markdown_table(headers, body) if body else ""


def machines(timings: Sequence[Timing]) -> list[dict[str, str]]:
    """For each machine what the suite's work costs beside other ways to do it, and how it grows."""
    by_machine: dict[str, list[Timing]] = {}
    for timing in timings:
        by_machine.setdefault(_machine(timing), []).append(timing)
    return [
        {"title": escape(name), "comparisons": _comparisons(timed), "growth": _growth(timed)}
        for name, timed in by_machine.items()
    ]


def _machine(timing: Timing) -> str:
    environment = timing.environment
    words = [environment["device"]]
    if environment["device"] == "cpu":
        words += [environment["processor"], f"{environment['threads']} threads"]
    return ", ".join([*words, f"torch {environment['torch']}", f"{timing.budget} budget"])


def _comparisons(timings: Sequence[Timing]) -> str:
    body = []
    for timing in timings:
        for other, figure in timing.others.items():
            ratio = f"{timing.ours / figure:.2f}" if figure else "–"
            ours = f"{_figure(timing.ours)} {timing.unit}"
            cells = (timing.work, timing.note, ours, other, _figure(figure), ratio)
            body.append([escape(cell) for cell in cells])
    headers = ["work", "how", "this suite", "beside", "its figure", "ratio"]
    return markdown_table(headers, body) if body else ""


def _growth(timings: Sequence[Timing]) -> str:
    body = []
    for timing in timings:
        points = "; ".join(f"{size}: {_figure(figure)}" for size, figure in timing.growth.items())
        if points:
            body.append([escape(cell) for cell in (timing.work, timing.unit, points)])
    return markdown_table(["work", "unit", "figures"], body) if body else ""


def _figure(value: float) -> str:
    """Three digits, more where the number has them before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
