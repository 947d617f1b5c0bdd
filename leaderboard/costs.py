"""The page's section on speed and cost."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.markdown import escape, markdown_table
from leaderboard.rows import Row, seconds_a_seed
from leaderboard.speed import Timing


def costs(verdicts: Sequence[tuple[str, Row]], timings: Sequence[Timing]) -> str:
    """What verdicts took, and what the suite's work costs beside other ways to do it.

    Args:
        verdicts: ranked rows, each with its setting in words.
        timings: of any devices.
    """
    parts = [_verdicts(verdicts)] if verdicts else []
    by_machine: dict[str, list[Timing]] = {}
    for timing in timings:
        by_machine.setdefault(_machine(timing), []).append(timing)
    for machine, timed in by_machine.items():
        parts += [f"### On {escape(machine)}\n", _comparisons(timed), _growth(timed)]
    if not parts:
        return ""
    return "\n".join(["## Speed and cost\n", *(part for part in parts if part)])


def _machine(timing: Timing) -> str:
    environment = timing.environment
    words = [environment["device"]]
    if environment["device"] == "cpu":
        words += [environment["processor"], f"{environment['threads']} threads"]
    return ", ".join([*words, f"torch {environment['torch']}", f"{timing.budget} budget"])


def _verdicts(verdicts: Sequence[tuple[str, Row]]) -> str:
    body = []
    for setting, row in verdicts:
        cascade = row.cascade
        seconds = "–"
        if cascade:
            images = max(record.case.images for record in cascade.values())
            seconds = f"{seconds_a_seed(cascade):.1f} on {images:,}"
        figures = [f"{row.training_seconds:.0f}", seconds, f"{row.attack_seconds:.0f}"]
        body.append([escape(setting), escape(row.label), str(row.submodels), *figures])
    headers = [
        "on",
        "defense",
        "n",
        "training (s)",
        "cascade (s), on images",
        "all attacks (s)",
    ]
    return (
        "**Seconds to a verdict**: to train, to craft with the cascade alone, and with every "
        f"attack; for one seed.\n\n{markdown_table(headers, body)}"
    )


def _comparisons(timings: Sequence[Timing]) -> str:
    body = []
    for timing in timings:
        for other, figure in timing.others.items():
            ratio = f"{timing.ours / figure:.2f}" if figure else "–"
            ours = f"{_figure(timing.ours)} {timing.unit}"
            how = timing.note
            body.append(
                [escape(c) for c in (timing.work, how, ours, other, _figure(figure), ratio)]
            )
    if not body:
        return ""
    headers = ["work", "how", "this suite", "beside", "its figure", "ratio"]
    return (
        "**Beside others**: medians, timed in turn in one run where the row says nothing else. "
        "A gradient is that of one network in one image; an image trained on counts once for each "
        "network. *Matrix products* are a limit: how many gradients or images a second there would "
        "be if all the arithmetic they need ran as fast as this machine multiplies large matrices "
        f"of that type.\n\n{markdown_table(headers, body)}"
    )


def _growth(timings: Sequence[Timing]) -> str:
    body = []
    for timing in timings:
        if timing.growth:
            points = "; ".join(
                f"{size}: {_figure(figure)}" for size, figure in timing.growth.items()
            )
            body.append([escape(timing.work), escape(timing.unit), escape(points)])
    if not body:
        return ""
    return f"**How cost grows**\n\n{markdown_table(['work', 'unit', 'figures'], body)}"


def _figure(value: float) -> str:
    """Three digits, more where the number has them before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
