"""The ranking: rows that passed their checks, by what the worst case leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from leaderboard import gates, metrics
from leaderboard.formats import format_percent, format_points, format_score
from leaderboard.gates import Gate, Outcome
from leaderboard.markdown import escape, markdown_table
from leaderboard.rows import Row

Checked = Sequence[tuple[Row, list[Gate]]]
OUTCOMES: tuple[Outcome, ...] = ("passed", "undecided", "failed", "not run")


def ranking(rows: Checked) -> str:
    """The ranked table."""
    headers = ["rank", "defense", "n", "clean", "claimed", "**worst case**", "illusion"]
    headers += ["best member", "gain", "averaged", "gates", "training (s)", "attacks (s)", "seeds"]
    ranked = [row for row, checks in rows if row.complete and gates.passed(checks)]
    most_images = max((record.case.images for row, _ in rows for record in row.records), default=0)
    ranks = [1 + sum(better(other, row) for other in ranked) for row in ranked]
    body = []
    for row, checks in rows:
        rank = "–"
        if row in ranked:
            place = ranks[ranked.index(row)]
            rank = f"{place}{'=' * (ranks.count(place) > 1)}"
        counts: Counter[Outcome] = Counter(gate.outcome for gate in checks)
        gain = row.gain
        mark = " †" if gain is not None and gain.low <= 0 else ""
        so_far = "" if row.complete else "≤ "
        worst = f"**{so_far}{format_score(row.worst)}**" if row.worst else "–"
        if 0 < row.worst_images < most_images:
            worst += f" on {row.worst_images:,}"
        body.append(
            [
                rank,
                escape(row.label),
                str(row.submodels),
                format_score(row.score("none")),
                f"{so_far}{format_score(row.claimed)}" if row.claimed else "–",
                worst,
                format_points(row.illusion if row.complete else None),
                format_percent(row.best_own.value if row.best_own else None),
                format_points(gain.value if gain else None) + mark if row.submodels > 1 else "–",
                format_score(row.protocol_score("average") if row.submodels > 1 else None),
                ", ".join(f"{counts[word]} {word}" for word in OUTCOMES if counts[word]),
                f"{row.training_seconds:.0f}",
                f"{row.attack_seconds:.0f}",
                ", ".join(map(str, row.seeds)),
            ]
        )
    notes = _notes(rows, ranked)
    return markdown_table(headers, body) + "".join(f"\n{note}\n" for note in notes)


def _notes(rows: Checked, ranked: Sequence[Row]) -> list[str]:
    """What the table leaves out: why a row has no rank, and what is not of all its seeds."""
    notes = []
    if any(row not in ranked for row, _ in rows):
        notes.append(
            "– as a rank: an attack or a check that a rank needs was not run, or failed; "
            "elsewhere: not measured, without meaning for one network, or kept back where attacks "
            "that a rank needs were not run."
        )
    for row, checks in rows:
        failures = "; ".join(
            f"“{gate.name}” ({escape(gate.figure)})" for gate in checks if gate.outcome == "failed"
        )
        if failures:
            notes.append(f"{escape(row.label)} fails {failures}.")
        partly: dict[tuple[int, ...], list[str]] = {}
        for name, by_seed in sorted({**row.by_attack, **row.by_protocol}.items()):
            if by_seed.keys() < set(row.seeds):
                partly.setdefault(tuple(sorted(by_seed)), []).append(f"`{name}`")
        for seeds, names in partly.items():
            notes.append(
                f"{escape(row.label)}: {', '.join(names)} and what is computed from them are of "
                f"seed {', '.join(map(str, seeds))} alone."
            )
    return notes


def better(first: Row, second: Row) -> bool:
    """Whether the first row's worst case is significantly above the second's, image by image."""
    excess = metrics.shared_difference(first.worst_by_seed, second.worst_by_seed)
    return excess is not None and excess.low > 0


def gate_details(checked: Checked) -> str:
    """Every gate of every row, with its figure."""
    headers = ["gate", *(escape(f"{row.label} (n={row.submodels})") for row, _ in checked)]
    words = {"failed": "**failed**", "not run": "–", "not applicable": "–"}
    body = [
        [same[0].name, *(f"{words.get(g.outcome, g.outcome)}: {escape(g.figure)}" for g in same)]
        for same in zip(*(found for _, found in checked), strict=True)
    ]
    return f"<details><summary>Gates</summary>\n\n{markdown_table(headers, body)}\n</details>\n"
