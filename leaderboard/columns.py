"""The columns of the ranking: to add one, add it to `COLUMNS`."""

import textwrap
from collections.abc import Callable, Collection
from dataclasses import dataclass

from . import gates
from .board import Entry, Ranking
from .formats import escape, format_percent, format_points, format_score, markdown_table, plus_minus


@dataclass(frozen=True)
class Column:
    """A column, and what it shows of an entry.

    Attributes:
        meaning: for the legend; empty where the header says it all.
        cell: on the defense's page.
        short: in the ranking; None: not shown there.
    """

    header: str
    meaning: str
    cell: Callable[[Entry], str]
    short: Callable[[Entry], str] | None = None


def _link(entry: Entry) -> str:
    name = entry.row.defense
    return f"[{name}] {escape(entry.row.label.removeprefix(name))}".strip()


def _random(entry: Entry) -> str:
    n = entry.row.submodels
    words = f"one of {n}" if n > 1 else entry.row.facts.random
    return escape(textwrap.shorten(words, 12, placeholder="…"))


def _worst(entry: Entry) -> str:
    images = entry.row.worst_images
    fewer = 0 < images < entry.ranking.section.setting.images
    return entry.worst(format_score) + f" on {images:,} images" * fewer


def _times(entry: Entry) -> str:
    count = len(entry.row.seeds)
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


COLUMNS = (
    Column(
        "rank",
        "the places that a row may have, by paired differences on the same images; – where it, or "
        "a row that is significantly better, is an upper bound (≤)",
        *["{0.rank}".format] * 2,
    ),
    Column("defense", "", lambda entry: escape(entry.row.label), _link),
    Column("random", "what is random in an answer", lambda e: escape(e.row.facts.random), _random),
    Column(
        *("clean", "accuracy on images as they are"),
        lambda entry: format_score(entry.row.score("none")),
        lambda entry: format_percent(entry.row.score("none")),
    ),
    Column(
        "claimed",
        "robust accuracy under the attacks of the defense's authors, on one draw (for the paper: "
        "MRA, Eq. 6); the lowest of them",
        lambda entry: entry.claimed(format_score),
        lambda entry: entry.claimed(plus_minus),
    ),
    Column(
        "certified",
        "robust accuracy that no attack can take, proven: by interval bounds, or of Gaussian noise "
        "from many draws of a clean image",
        *[lambda entry: format_percent(entry.row.protocol_score("certified"))] * 2,
    ),
    Column(
        "worst case",
        "robust accuracy under an attacker who knows everything but the draw and has, for each "
        "image, the strongest of all attacks run. Rows are ranked by it; count on this number",
        _worst,
        lambda entry: entry.worst(plus_minus),
    ),
    Column(
        "seen",
        "robust accuracy where the attacker also sees the draw: what is not owed to hiding it",
        lambda entry: format_percent(entry.row.known),
    ),
    Column(
        "verdict",
        "whether the claimed gain over the same network without the randomness survives in the "
        "worst case: it *holds up* (at least half), *partly*, or *collapses*; *no gain*: none is "
        "claimed; *undecided*: too few images, or a check that it needs failed",
        *[lambda entry: entry.verdict.word if entry.verdict else "–"] * 2,
    ),
    Column(
        "trained",
        "with how many seeds; where once, another training may differ by more than ± says",
        lambda entry: _times(entry) + f" (seed {', '.join(map(str, entry.row.seeds))})",
        _times,
    ),
    Column(
        "cost",
        "of an answer, in forward passes, and how many networks must be trained and kept",
        *[lambda e: f"1 of {e.row.submodels}" if e.row.submodels > 1 else "1"] * 2,
    ),
    Column(
        "best member",
        "robust accuracy of the best network alone, chosen and scored on halves of the images",
        lambda entry: format_percent(entry.row.best_member),
    ),
    Column(
        "gain",
        "robust accuracy of the population minus its best member's under the same cascade: what "
        "drawing at random buys; † where it is not significant",
        lambda entry: format_points(g := entry.row.gain) + (" †" if g and g.low <= 0 else ""),
    ),
    Column(
        "averaged",
        "robust accuracy of the same networks as an ensemble of averaged probabilities: n passes",
        lambda entry: format_score(entry.row.protocol_score("average")),
    ),
    Column(
        "gates",
        "checks that a ranked row must not fail; undecided where too few images were used to tell",
        lambda entry: gates.counted(entry.gates),
    ),
    Column(
        *("training (s)", "of one seed, without a population it was initialised from"),
        "{0.row.training_seconds:.0f}".format,
    ),
    Column("attacks (s)", "of one seed", "{0.row.attack_seconds:.0f}".format),
)


def ranked_table(ranking: Ranking, headers: Collection[str] = ()) -> str:
    """The ranking: of the columns that have a short form all, or those with these headers."""
    short = {c.header: [c.short(e) for e in ranking.entries] for c in COLUMNS if c.short}
    shown = [header for header in short if header in (headers or short)]
    if set(short["certified"]) == {"–"}:
        shown = [header for header in shown if header != "certified"]
    return markdown_table(shown, [*zip(*(short[header] for header in shown), strict=True)])
