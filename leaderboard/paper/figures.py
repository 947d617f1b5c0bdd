"""The paper's figures and others on its claims; each title is what the figure shows."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ... import metrics
from ...arrays import Array
from .. import drawing
from ..drawing import COLORS, FOREGROUND, label_ends, panels, style
from ..records import Record
from .correlation import correlations, parities
from .evidence import COMPARED, DIVERSITY, Evidence
from .names import NAMES, format_radius
from .study import Study
from .templating import render_macro
from .transfer import transfer


@dataclass(frozen=True)
class Figure(drawing.Figure):
    """One figure of a report."""

    kind: str
    title: str
    caption: str


def gallery(study: Study) -> list[Figure]:
    """All figures that the study's records and evidence allow."""
    shown: dict[str, Any] = {
        "transfer": transfer_tables(study.section.records),
        **study.evidence,
    }
    if "conformity" in shown and len(shown["conformity"].arrays["seeds"]) == 1:
        del shown["conformity"]
    return [
        Figure(
            f"{kind}-{study.setting.dataset}-{study.setting.budget}.svg",
            _data(shown[kind]),
            partial(draw, shown[kind]),
            kind,
            title,
            render_macro("captions.md", kind, shown[kind]),
        )
        for kind, (title, draw) in _DRAWN.items()
        if shown.get(kind)
    ]


def _color(defense: str) -> str:
    return style(defense)["color"]


def draw_size(evidence: Evidence, figure: Any) -> None:
    """MRA and the worst case against the number of submodels."""
    (panel,) = panels(figure, 7.6, 4.0)
    sizes = evidence.arrays["sizes"].astype(int)
    ends, most = [], {}
    for name, shift in zip(COMPARED, (-0.06, 0.06), strict=True):
        for column, line, words in (
            ("claimed", "--", "PGD on one drawn"),
            ("worst", "-", "worst case"),
        ):
            of_each = (metrics.Answers(s[None]) for s in evidence.arrays[f"{name} {column} s"])
            scores = [metrics.score([answers]) for answers in of_each]
            low, values, high = 100 * np.transpose([(s.low, s.value, s.high) for s in scores])
            bars = values - low, high - values
            look = {"linestyle": line, "markersize": 4, "capsize": 3, **style(name)}
            panel.errorbar(sizes + shift, values, bars, **look)
            ends.append((values[-1], f"{NAMES[name]}, {words}", _color(name)))
            most[name, column] = values[-1]
    label_ends(panel, ends)
    panel.set(xlabel="n, networks in the population", ylabel="MRA (%)", xticks=sizes)
    panel.set_ylim(bottom=-2)
    shown = " and ".join(
        f"{NAMES[name]} {most[name, 'claimed']:.0f}% and {most[name, 'worst']:.0f}%"
        for name in COMPARED
    )
    panel.set_title(f"With {sizes[-1]} networks, PGD on one and the worst case:\n{shown}")


@dataclass(frozen=True)
class TransferTables:
    """T[a, b] of each of `COMPARED`: accuracy of b on images crafted on a, at one eps in words."""

    accuracies: Mapping[str, Array]
    eps: str

    def means(self, name: str) -> dict[str, float]:
        """Mean accuracy on the network itself, and on others by the parities of both."""
        table = self.accuracies[name]
        itself = np.eye(len(table), dtype=bool)
        means = {"on the network itself": float(table[itself].mean())}
        for (a, source), (b, target) in product(enumerate(("even", "odd")), repeat=2):
            others = table[a::2, b::2][~itself[a::2, b::2]]
            if others.size:
                means[f"from {source} to {target}"] = float(others.mean())
        return means


def transfer_tables(records: Iterable[Record]) -> TransferTables | None:
    """Of the records of "transfer" at the smallest eps, the newest of the lowest seed."""
    transfers = [r for r in records if r.case.protocol == "transfer" and r.case.defense in COMPARED]
    if not transfers:
        return None
    eps = min(record.case.eps for record in transfers)
    transfers.sort(key=lambda r: (-r.case.seed, r.case.submodels, r.measured_at))
    last = {record.case.defense: record for record in transfers if record.case.eps == eps}
    tables = {n: transfer(last[n].correct) for n in COMPARED if n in last}
    return TransferTables(tables, format_radius(transfers[0].case.dataset, eps))


def _data(shown: Evidence | TransferTables) -> bytes:
    """What tells whether a figure must be drawn again."""
    arrays = shown.arrays if isinstance(shown, Evidence) else shown.accuracies
    heads = {name: json.dumps([name, a.shape, str(a.dtype)]) for name, a in arrays.items()}
    return b"".join(heads[name].encode() + arrays[name].tobytes() for name in sorted(arrays))


def draw_transfer(tables: TransferTables, figure: Any) -> None:
    """Section 4.2: accuracy of submodel b on images crafted on submodel a, as heat maps."""
    accuracies = tables.accuracies
    height = 1.2 + 0.36 * max(map(len, accuracies.values()))
    width = 1.4 + len(accuracies) + 0.42 * sum(map(len, accuracies.values()))
    row, apart = panels(figure, width, height, columns=len(accuracies)), []
    for panel, (name, table) in zip(row, accuracies.items(), strict=True):
        apart.append(f"{table[~np.eye(len(table), dtype=bool)].mean():.0%} ({NAMES[name]})")
        percent = 100 * table
        image = panel.imshow(percent, vmin=0, vmax=100, cmap="cividis", aspect="auto")
        for (a, b), value in np.ndenumerate(percent):
            color = "black" if value > 55 else "white"
            panel.text(b, a, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
        numbers = range(len(table))
        panel.set(title=NAMES[name], xlabel="answered by", xticks=numbers, yticks=numbers)
        panel.grid(visible=False)
    row[0].set_ylabel("crafted on")
    figure.suptitle(f"Correct on images crafted on another network: {', '.join(apart)}")
    bar = figure.colorbar(image, ax=row, pad=0.02)
    bar.set_label(f"accuracy (%), PGD, eps {tables.eps}")


def draw_diversity(evidence: Evidence, figure: Any) -> None:
    """Each measure of diversity of a pair against its robust accuracy under both attackers."""
    arrays = evidence.arrays
    by_place = {(c.defense, c.measure, c.outcome): c for c in correlations(evidence)}
    outcomes = {"claimed": ("PGD on one", COLORS[3]), "worst": ("worst case", COLORS[5])}
    by_parity = parities(len(arrays["clm claimed"])).items()
    groups = [("ulm", "ULM", "o", np.ones(len(arrays["ulm claimed"]), bool))]
    groups += [
        ("clm", f"CLM, {words}", marker, pairs)
        for (words, pairs), marker in zip(by_parity, "^Dv", strict=True)
    ]
    row = panels(figure, 11.5, 4.0, columns=len(DIVERSITY), sharey=True)
    for number, (panel, measure) in enumerate(zip(row, DIVERSITY, strict=True)):
        above = []
        for outcome, (words, color) in outcomes.items():
            for name, _, marker, pairs in groups:
                x = arrays[f"{name} measures"][number][pairs]
                y = 100 * arrays[f"{name} {outcome}"][pairs]
                panel.plot(x, y, marker, color=color, markersize=4, alpha=0.8)
            rhos = (f"{NAMES[d]} {by_place[d, measure, outcome].starred}" for d in COMPARED)
            above.append(f"{words}: {', '.join(rhos)}")
        panel.set_title("\n".join(above), fontsize=9)
        panel.set_xlabel(measure.replace(" (", "\n("), fontsize=9)
    row[0].set_ylabel("MRA of the pair (%)")
    significant = [c.outcome for c in by_place.values() if c.significant]
    figure.suptitle(
        f"Significant of {len(DIVERSITY) * len(COMPARED)} correlations of diversity with MRA: "
        f"{significant.count('claimed')} under PGD on one, {significant.count('worst')} in the "
        "worst case"
    )
    for words, color in outcomes.values():
        row[0].plot([], color=color, linewidth=4, label=words)
    for _, label, marker, _ in groups:
        row[0].plot([], marker, color=FOREGROUND, label=label)
    figure.legend(loc="outside lower center", ncols=len(outcomes) + len(groups))


def draw_saliency(evidence: Evidence, figure: Any) -> None:
    """Fig. 6: cosine similarity of saliency maps of all pairs, ULM beside CLM."""
    row = panels(figure, 8.4, 3.6, columns=2, sharey=True)
    for panel, name in zip(row, COMPARED, strict=True):
        quantiles = evidence.arrays[f"{name} quantiles"]
        quantiles = quantiles[np.argsort(quantiles[:, 2])]
        mean = float(evidence.arrays[f"{name} mean"].mean())
        at, color = np.arange(len(quantiles)), _color(name)
        panel.vlines(at, quantiles[:, 0], quantiles[:, 4], color=color, linewidth=1, alpha=0.6)
        panel.vlines(at, quantiles[:, 1], quantiles[:, 3], color=color, linewidth=5)
        panel.plot(at, quantiles[:, 2], "_", color=FOREGROUND, markersize=6)
        panel.axhline(mean, color=color, linestyle="--", linewidth=1.2)
        panel.set(title=f"{NAMES[name]}: mean {mean:.2f}", xticks=[])
        panel.set_xlabel(f"{len(at)} pairs of submodels, by median")
    row[0].set_ylabel("cosine of saliency maps")
    absolute = {name: evidence.arrays[f"{name} absolute"].mean() for name in COMPARED}
    more = min(absolute, key=lambda name: float(absolute[name]))
    figure.suptitle(f"Saliency maps are more orthogonal in {NAMES[more]}")


def draw_conformity(evidence: Evidence, figure: Any) -> None:
    """Every submodel of several CLMs: its accuracy, clean and under PGD."""
    row = panels(figure, 8.4, 3.2, columns=2)
    titles = {"clean": "clean images", "claimed": "under PGD on one drawn network"}
    for panel, (name, title) in zip(row, titles.items(), strict=True):
        table = 100 * evidence.arrays[name]
        for at, accuracies in enumerate(table, 1):
            shift = np.linspace(-0.22, 0.22, len(accuracies))
            panel.plot(at + shift, accuracies, "o", color=_color("clm"), markersize=4)
            panel.hlines(accuracies.mean(), at - 0.3, at + 0.3, color=FOREGROUND, linewidth=2)
        panel.set(title=title, xlabel="CLM, by training seed", xticks=range(1, len(table) + 1))
        panel.set_xticklabels([f"{int(seed)}" for seed in evidence.arrays["seeds"]])
    row[0].set_ylabel("accuracy of each submodel (%)")
    apart = {name: 100 * np.ptp(evidence.arrays[name].mean(axis=1)) for name in titles}
    figure.suptitle(
        f"{len(evidence.arrays['seeds'])} CLMs lie within {apart['clean']:.1f} points on clean "
        f"images, {apart['claimed']:.1f} under PGD"
    )


def draw_masks(evidence: Evidence, figure: Any) -> None:
    """Fig. 3: which elements of a filter are counter-linked, channel by channel."""
    from matplotlib.colors import ListedColormap

    mask = evidence.arrays["mask"]
    colors = ListedColormap(["none", _color("clm")])
    channels = len(mask)
    row = panels(figure, 2.4 * channels + 0.4, 2.9, columns=channels)
    for number, (panel, channel) in enumerate(zip(row, mask, strict=True), 1):
        panel.pcolormesh(channel, cmap=colors, vmin=0, vmax=1, edgecolors=FOREGROUND)
        panel.set(aspect="equal", title=f"channel {number}" if channels > 1 else "")
        panel.invert_yaxis()
        panel.set_axis_off()
    figure.suptitle(f"{int(mask.sum())} of {mask.size} weights are linked", fontsize=11)


def draw_weights(evidence: Evidence, figure: Any) -> None:
    """Fig. 4: the distribution of first-layer weights, ULM beside CLM."""
    arrays = {name: evidence.arrays[name].ravel() for name in COMPARED}
    limit = max(float(np.abs(values).max()) for values in arrays.values())
    edges = np.linspace(-limit, limit, 61)
    (panel,) = panels(figure, 6.4, 3.4)
    for name, values in arrays.items():
        weights = np.full(len(values), 100 / len(values))
        look = {"color": _color(name), "linewidth": 2, "label": NAMES[name]}
        panel.hist(values, edges, weights=weights, histtype="step", **look)
    panel.set(xlabel="weight in the first layer", ylabel="share of weights (%)")
    panel.legend(loc="upper right")
    ulm, clm = (values.std() for values in arrays.values())
    panel.set_title(f"CLM's weights spread {clm / ulm:.1f} times as wide as ULM's")


def draw_trajectory(evidence: Evidence, figure: Any) -> None:
    """Fig. 5: one counter-linked and one free weight in all submodels over the retraining."""
    steps = evidence.arrays["step"]
    left, right = panels(figure, 8.4, 3.4, columns=2, sharey=True)
    for panel, kind in ((left, "linked"), (right, "free")):
        for index, values in enumerate(evidence.arrays[kind]):
            parity, color = ("odd", COLORS[2]) if index % 2 else ("even", COLORS[3])
            label = f"{parity} submodels" if index < 2 else None
            panel.plot(steps, values, color=color, linewidth=1.2, label=label)
        panel.set(title=f"a {'counter-linked' if kind == 'linked' else 'free'} weight")
        panel.set_xlabel("training step")
    # Beside a free weight, which hardly moves, there is room.
    right.legend(loc="upper left", fontsize=9)
    left.set_ylabel(f"weight, {len(evidence.arrays['linked'])} submodels")
    linked, free = (evidence.arrays[kind].std(axis=0)[[0, -1]] for kind in ("linked", "free"))
    figure.suptitle(
        f"Retraining spreads the linked weight from {linked[0]:.3f} to {linked[1]:.3f}, the free "
        f"one from {free[0]:.3f} to {free[1]:.3f}"
    )


def draw_examples(evidence: Evidence, figure: Any) -> None:
    """Images of each class at growing eps, with how many submodels still answer right."""
    images, right = evidence.arrays["images"], evidence.arrays["s"]
    rows, columns = right.shape
    grid = panels(figure, 0.85 * columns + 1.1, 1.07 * rows + 0.6, rows, columns)
    kept = (evidence.arrays["answers"] == evidence.arrays["labels"]).sum(axis=1)
    radii = [format_radius(evidence.dataset, float(eps)) for eps in evidence.arrays["eps"]]
    words = ", ".join(f"{n} at eps {eps}" for n, eps in zip(kept, radii, strict=True))
    figure.suptitle(
        f"Images that most networks answer correctly, of {columns}: {words}", fontsize=11
    )
    for panel, (row, column) in zip(grid, np.ndindex(rows, columns), strict=True):
        pixels = images[row, column].transpose(1, 2, 0)
        panel.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="none")
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        answer = int(evidence.arrays["answers"][row, column])
        fooled = answer != evidence.arrays["labels"][column]
        color = COLORS[5] if fooled else COLORS[3]
        panel.spines[:].set(visible=True, color=color, linewidth=2.5)
        panel.set_title(f"{answer} ({100 * right[row, column]:.0f}%)", fontsize=8, pad=3)
        if column == 0:
            panel.set_ylabel(f"eps {radii[row]}", fontsize=9)


# What draws each kind, with the figure's title, in the report's order.
_DRAWN: Mapping[str, tuple[str, Callable[[Any, Any], None]]] = {
    "size": ("How many networks", draw_size),
    "transfer": ("Transfer between networks (Section 4.2)", draw_transfer),
    "diversity": ("Does diversity buy robustness?", draw_diversity),
    "saliency": ("Saliency maps (Fig. 6)", draw_saliency),
    "conformity": ("Conformity of CLMs (Section 4)", draw_conformity),
    "masks": ("The mask (Fig. 3)", draw_masks),
    "weights": ("First-layer weights (Fig. 4)", draw_weights),
    "trajectory": ("A weight over the retraining (Fig. 5)", draw_trajectory),
    "examples": ("Examples at growing radii", draw_examples),
}
