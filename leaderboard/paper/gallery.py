"""The figures of a study: each with what it shows, in a sentence with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from leaderboard.curves import Curve, curves
from leaderboard.paper import figures as paper_figures
from leaderboard.paper.evidence import COMPARED, Evidence
from leaderboard.paper.figures import TransferTables, transfer_tables
from leaderboard.paper.findings import SIGNIFICANT, parities, size_scores
from leaderboard.paper.names import CLAIM_ATTACKS, NAMES, format_radius
from leaderboard.paper.studies import Study


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        kind: its id.
        file: its name under `figures/`.
        caption: what it shows.
        draw: makes the SVG text.
    """

    kind: str
    file: str
    title: str
    caption: str
    draw: Callable[[], str]


def gallery(study: Study) -> list[Figure]:
    """All figures that the study's records and evidence allow."""
    found = []
    for kind, title, data_of, caption, draw in _FIGURES:
        if data := data_of(study):
            file = f"{kind}-{study.setting.dataset}-{study.setting.budget}.svg"
            found.append(Figure(kind, file, title, caption(data), partial(draw, data)))
    return found


def _evidence(kind: str) -> Callable[[Study], Evidence | None]:
    return lambda study: study.evidence.get(kind)


def _several_clms(study: Study) -> Evidence | None:
    """One CLM conforms to nothing."""
    evidence = study.evidence.get("conformity")
    return evidence if evidence and len(evidence.arrays["seeds"]) > 1 else None


def _curves(lines: Sequence[Curve]) -> str:
    attacks = sorted({attack for line in lines for attack in line.attacks})
    claims = [f"`{attack}`" for attack in attacks if attack in CLAIM_ATTACKS]
    text = (
        f"Left: the lowest of {' and '.join(claims)} on one network drawn for each image, as the "
        "paper attacks. Right: for each image the best of these and of "
        f"{' and '.join(f'`{a}`' for a in attacks if a not in CLAIM_ATTACKS)}, which attacks all "
        "networks at once, on as many images as all were run on."
    )
    of_seeds: dict[tuple[int, ...], list[str]] = {}
    for line in lines:
        of_seeds.setdefault(line.seeds, []).append(NAMES.get(line.label, line.label))
    shown = [
        f"{', '.join(names)} of seed {', '.join(map(str, seeds))}"
        for seeds, names in of_seeds.items()
    ]
    return (
        f"{text} {'; '.join(shown)}. The tables' *claimed* and *worst case* are of more attacks, "
        "and so lie at or below these curves, and of all seeds."
    )


def _size(evidence: Evidence) -> str:
    parts = []
    for name in COMPARED:
        claimed, worst = (size_scores(evidence, name, column) for column in ("claimed", "worst"))
        many = max(claimed)
        parts.append(
            f"{NAMES[name]} with {many}: {100 * claimed[many].value:.1f} under PGD, "
            f"{100 * worst[many].value:.1f} in the worst case"
        )
    return (
        "The first n networks of the population, deployed and attacked by themselves, on "
        f"{evidence.parameters['images']:,} images, eps "
        f"{format_radius(evidence.dataset, evidence.parameters['eps'])}. {'; '.join(parts)}. Bars: "
        "95% intervals over images."
    )


def _transfer(tables: TransferTables) -> str:
    parts = []
    for name, table in tables.accuracies.items():
        odd = np.arange(len(table)) % 2
        own = np.eye(len(table), dtype=bool)
        crafted, answered = np.meshgrid(odd, odd, indexing="ij")
        groups = {
            "on the network itself": own,
            **{
                f"from {('even', 'odd')[a]} to {('even', 'odd')[b]}": (
                    (crafted == a) & (answered == b) & ~own
                )
                for a in (0, 1)
                for b in (0, 1)
            },
        }
        shares = (
            f"{100 * table[at].mean():.0f} {words}" for words, at in groups.items() if at.any()
        )
        parts.append(f"{NAMES[name]}: {', '.join(shares)}")
    return (
        "Accuracy of each network on PGD images crafted on each other; what is left off the "
        "diagonal is what drawing at random gains. Counter-linking pushes even submodels one way "
        f"and odd ones the other. Left on average: {'; '.join(parts)}."
    )


def _diversity(evidence: Evidence) -> str:
    eps = format_radius(evidence.dataset, evidence.parameters["pair_eps"])
    return (
        f"Pairs of networks as populations of two, at eps {eps}: how much the two differ, by four "
        "measures, against what is left of the pair under the paper's PGD and in the worst case "
        "(over it and PGD on the clipped margin of both). Above each panel Spearman's rank "
        "correlation over the pairs of each population (of CLM within the pairs of two even "
        "networks, of two odd ones and of one of each), with a star where p < "
        f"{SIGNIFICANT} in a test that relabels networks. {_by_parity(evidence)}"
    )


def _by_parity(evidence: Evidence) -> str:
    """What is left of CLM's pairs, by which way counter-linking pushed the two."""
    groups = parities(len(evidence.arrays["clm claimed"]))
    shares = [
        f"{words}: {100 * evidence.arrays['clm claimed'][mine].mean():.0f} under PGD on one, "
        f"{100 * evidence.arrays['clm worst'][mine].mean():.0f} in the worst case"
        for words, mine in groups.items()
        if mine.any()
    ]
    return (
        "Counter-linking pushes even networks one way and odd ones the other; what is left of "
        f"CLM's pairs of {'; '.join(shares)}."
    )


def _conformity(evidence: Evidence) -> str:
    claimed = evidence.arrays["claimed"]
    even, odd = (f"{100 * claimed[:, start::2].mean():.0f}" for start in (0, 1))
    return (
        f"{len(claimed)} CLMs, each retrained from an ULM of its own: every submodel a dot, their "
        "mean (the MRA) a bar. Counter-linking pushes even submodels one way and odd ones the "
        f"other: of those under PGD on one drawn network {even} and {odd} is left on average."
    )


def _examples(_: Evidence) -> str:
    return (
        "Images of each class, perturbed by PGD on the clipped margin of the whole CLM. Above each "
        "image the answer that most of its networks give, and the share of them that answer right; "
        "framed in green where the first is right."
    )


def _masks(evidence: Evidence) -> str:
    mask = evidence.arrays["mask"]
    return (
        f"The link tensor: {int(mask.sum())} of {mask.size} weights of every first-layer filter "
        "are counter-linked, the same in all filters and submodels."
    )


def _weights(evidence: Evidence) -> str:
    ulm, clm = (float(evidence.arrays[name].std()) for name in COMPARED)
    return f"First-layer weights: the spread of CLM's is {clm / ulm:.1f} times that of ULM's."


def _trajectory(evidence: Evidence) -> str:
    spread = {
        kind: [f"{evidence.arrays[kind][:, at].std():.3f}" for at in (0, -1)]
        for kind in ("linked", "free")
    }
    return (
        "One counter-linked and one free weight of the first filter in all submodels while ULM is "
        "retrained into CLM. Counter-linking pushes even submodels up and odd ones down. Standard "
        "deviation over submodels at the start and at the end: "
        + "; ".join(f"{kind} {' and '.join(values)}" for kind, values in spread.items())
        + "."
    )


def _saliency(evidence: Evidence) -> str:
    means = {name: float(evidence.arrays[f"{name} mean"].mean()) for name in COMPARED}
    return (
        "Cosine similarity of the saliency maps of all pairs of submodels over images: median, "
        "quartiles, and the range from the 5th to the 95th percentile; dashed the mean over pairs, "
        + " and ".join(f"{mean:.3f} for {NAMES[name]}" for name, mean in means.items())
        + "."
    )


# Id, title, what it is drawn from, its caption, and how it is drawn.
_FIGURES: tuple[
    tuple[str, str, Callable[[Study], Any], Callable[[Any], str], Callable[[Any], str]], ...
] = (
    (
        "curves",
        "What is left at every eps",
        lambda study: curves(study.records),
        _curves,
        paper_figures.draw_curves,
    ),
    (
        "size",
        "How many networks",
        _evidence("size"),
        _size,
        paper_figures.draw_size,
    ),
    (
        "transfer",
        "From network to network (Section 4.2)",
        lambda study: transfer_tables(study.records),
        _transfer,
        paper_figures.draw_transfer,
    ),
    (
        "diversity",
        "Does diversity buy robustness?",
        _evidence("diversity"),
        _diversity,
        paper_figures.draw_diversity,
    ),
    (
        "saliency",
        "Saliency maps (Fig. 6)",
        _evidence("saliency"),
        _saliency,
        paper_figures.draw_saliency,
    ),
    (
        "conformity",
        "Conformity of CLMs (Section 4)",
        _several_clms,
        _conformity,
        paper_figures.draw_conformity,
    ),
    ("masks", "The mask (Fig. 3)", _evidence("masks"), _masks, paper_figures.draw_masks),
    (
        "weights",
        "First-layer weights (Fig. 4)",
        _evidence("weights"),
        _weights,
        paper_figures.draw_weights,
    ),
    (
        "trajectory",
        "A weight over the retraining (Fig. 5)",
        _evidence("trajectory"),
        _trajectory,
        paper_figures.draw_trajectory,
    ),
    (
        "examples",
        "What eps means",
        _evidence("examples"),
        _examples,
        paper_figures.draw_examples,
    ),
)
