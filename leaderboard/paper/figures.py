"""The paper's figures and others on its claims, drawn from our populations."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from .. import drawing, metrics
from ..arrays import Array
from ..curves import Curve, curves
from ..drawing import COLORS, DEFENSE_COLORS, FOREGROUND, colors, panels, plot_mra
from ..records import Record
from .evidence import COMPARED, DIVERSITY, Evidence
from .findings import correlations, parities
from .names import NAMES, format_radius
from .studies import Study
from .templating import render_macro


@dataclass(frozen=True)
class Figure(drawing.Figure):
    """One figure of a report."""

    kind: str
    title: str
    caption: str


def gallery(study: Study) -> list[Figure]:
    """All figures that the study's records and evidence allow."""
    shown: dict[str, Any] = {
        "curves": curves(study.records),
        "transfer": transfer_tables(study.records),
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


def _legend_above(panel: Any) -> None:
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, borderaxespad=0, fontsize=9)


def draw_curves(curves: Sequence[Curve], figure: Any) -> None:
    """All defenses, under attacks on one drawn network and on all at once."""
    left, right = panels(figure, 9.2, 3.8, columns=2, sharey=True)
    labels = [f"{NAMES.get(c.label, c.label)} (n={c.submodels})" for c in curves]
    inks = colors(curve.label for curve in curves)
    for panel, title, attacker in (
        (left, "attacks on one drawn network", "claimed"),
        (right, "the same, and attacks on all at once", "worst"),
    ):
        points = ({p.eps: getattr(p, attacker) for p in curve.points} for curve in curves)
        plot_mra(panel, title, zip(points, labels, inks, strict=True), markersize=4, linewidth=1.8)
    left.set_ylabel("MRA (%)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")


def draw_size(evidence: Evidence, figure: Any) -> None:
    """MRA and the worst case against the number of submodels."""
    (panel,) = panels(figure, 6.4, 3.6)
    sizes = evidence.arrays["sizes"].astype(int)
    for name, marker, shift in ((COMPARED[0], "o", -0.06), (COMPARED[1], "^", 0.06)):
        style = {"color": DEFENSE_COLORS[name], "marker": marker, "markersize": 4, "capsize": 3}
        for column, line, words in (
            ("claimed", "--", "PGD on one drawn"),
            ("worst", "-", "worst case"),
        ):
            of_each = (metrics.Answers(s[None]) for s in evidence.arrays[f"{name} {column} s"])
            scores = [metrics.score([answers]) for answers in of_each]
            low, values, high = 100 * np.transpose([(s.low, s.value, s.high) for s in scores])
            bars, label = (values - low, high - values), f"{NAMES[name]}, {words}"
            panel.errorbar(sizes + shift, values, bars, linestyle=line, label=label, **style)
    panel.set(xlabel="n, networks in the population", ylabel="MRA (%)", xticks=sizes)
    panel.set_ylim(bottom=-2)
    _legend_above(panel)


@dataclass(frozen=True)
class TransferTables:
    """T[a, b] of each of `COMPARED`: accuracy of b on images crafted on a, at one eps in words."""

    accuracies: Mapping[str, Array]
    eps: str

    def means(self, name: str) -> dict[str, float]:
        """Mean accuracy on the network itself, and on others by the parities of both."""
        table = self.accuracies[name]
        own = np.eye(len(table), dtype=bool)
        means = {"on the network itself": float(table[own].mean())}
        for (a, source), (b, target) in product(enumerate(("even", "odd")), repeat=2):
            others = table[a::2, b::2][~own[a::2, b::2]]
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
    tables = {n: metrics.transfer(last[n].correct).accuracies for n in COMPARED if n in last}
    return TransferTables(tables, format_radius(transfers[0].case.dataset, eps))


def _data(shown: Evidence | TransferTables | Sequence[Curve]) -> bytes:
    """What tells whether a figure must be drawn again."""
    if isinstance(shown, Evidence):
        arrays = sorted(shown.arrays.items())
        heads = (json.dumps([name, array.shape, str(array.dtype)]) for name, array in arrays)
        return b"".join(h.encode() + a.tobytes() for h, (_, a) in zip(heads, arrays, strict=True))
    if isinstance(shown, TransferTables):
        return b"".join(name.encode() + t.tobytes() for name, t in shown.accuracies.items())
    return json.dumps([asdict(curve) for curve in shown]).encode()


def draw_transfer(tables: TransferTables, figure: Any) -> None:
    """Section 4.2: accuracy of submodel b on images crafted on submodel a, as heat maps."""
    accuracies = tables.accuracies
    height = 1.2 + 0.36 * max(map(len, accuracies.values()))
    width = 1.4 + len(accuracies) + 0.42 * sum(map(len, accuracies.values()))
    row = panels(figure, width, height, columns=len(accuracies))
    for panel, (name, table) in zip(row, accuracies.items(), strict=True):
        percent = 100 * table
        image = panel.imshow(percent, vmin=0, vmax=100, cmap="cividis", aspect="auto")
        for (a, b), value in np.ndenumerate(percent):
            color = "black" if value > 55 else "white"
            panel.text(b, a, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
        numbers = range(len(table))
        panel.set(title=NAMES[name], xlabel="answered by", xticks=numbers, yticks=numbers)
        panel.grid(visible=False)
    row[0].set_ylabel("crafted on")
    bar = figure.colorbar(image, ax=row, pad=0.02)
    bar.set_label(f"accuracy (%), PGD, eps {tables.eps}")


def draw_diversity(evidence: Evidence, figure: Any) -> None:
    """Each measure of diversity of a pair against its robust accuracy under both attackers."""
    from matplotlib.lines import Line2D

    arrays = evidence.arrays
    found = {(c.defense, c.measure, c.outcome): c for c in correlations(evidence)}
    outcomes = {"claimed": ("PGD on one", COLORS[2]), "worst": ("worst case", COLORS[3])}
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
            rhos = (f"{NAMES[d]} {found[d, measure, outcome].starred}" for d in COMPARED)
            above.append(f"{words}: {', '.join(rhos)}")
        panel.set_title("\n".join(above), fontsize=9)
        panel.set_xlabel(measure.replace(" (", "\n("), fontsize=9)
    row[0].set_ylabel("MRA of the pair (%)")
    handles = [
        Line2D([], [], color=color, linewidth=4, label=words) for words, color in outcomes.values()
    ]
    handles += [
        Line2D([], [], marker=marker, label=label, linestyle="", color=FOREGROUND)
        for _, label, marker, _ in groups
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def draw_saliency(evidence: Evidence, figure: Any) -> None:
    """Fig. 6: cosine similarity of saliency maps of all pairs, ULM beside CLM."""
    row = panels(figure, 8.4, 3.6, columns=2, sharey=True)
    for panel, name in zip(row, COMPARED, strict=True):
        quantiles = evidence.arrays[f"{name} quantiles"]
        quantiles = quantiles[np.argsort(quantiles[:, 2])]
        mean = float(evidence.arrays[f"{name} mean"].mean())
        at, color = np.arange(len(quantiles)), DEFENSE_COLORS[name]
        panel.vlines(at, quantiles[:, 0], quantiles[:, 4], color=color, linewidth=1, alpha=0.6)
        panel.vlines(at, quantiles[:, 1], quantiles[:, 3], color=color, linewidth=5)
        panel.plot(at, quantiles[:, 2], "_", color=FOREGROUND, markersize=6)
        panel.axhline(mean, color=color, linestyle="--", linewidth=1.2)
        panel.set(title=f"{NAMES[name]}: mean {mean:.2f}", xticks=[])
        panel.set_xlabel(f"{len(at)} pairs of submodels, by median")
    row[0].set_ylabel("cosine of saliency maps")


def draw_conformity(evidence: Evidence, figure: Any) -> None:
    """Every submodel of several CLMs: its accuracy, clean and under PGD."""
    row = panels(figure, 8.4, 3.2, columns=2)
    titles = {"clean": "clean images", "claimed": "under PGD on one drawn network"}
    for panel, (name, title) in zip(row, titles.items(), strict=True):
        table = 100 * evidence.arrays[name]
        for at, accuracies in enumerate(table, 1):
            shift = np.linspace(-0.22, 0.22, len(accuracies))
            panel.plot(at + shift, accuracies, "o", color=DEFENSE_COLORS["clm"], markersize=4)
            panel.hlines(accuracies.mean(), at - 0.3, at + 0.3, color=FOREGROUND, linewidth=2)
        panel.set(title=title, xlabel="CLM, by training seed", xticks=range(1, len(table) + 1))
        panel.set_xticklabels([f"{int(seed)}" for seed in evidence.arrays["seeds"]])
    row[0].set_ylabel("accuracy of each submodel (%)")


def draw_masks(evidence: Evidence, figure: Any) -> None:
    """Fig. 3: which elements of a filter are counter-linked, channel by channel."""
    from matplotlib.colors import ListedColormap

    mask = evidence.arrays["mask"]
    colors = ListedColormap(["none", DEFENSE_COLORS["clm"]])
    channels = len(mask)
    row = panels(figure, 2.4 * channels + 0.4, 2.9, columns=channels)
    for number, (panel, channel) in enumerate(zip(row, mask, strict=True), 1):
        panel.pcolormesh(channel, cmap=colors, vmin=0, vmax=1, edgecolors=FOREGROUND)
        panel.set(aspect="equal", title=f"channel {number}" if channels > 1 else "")
        panel.invert_yaxis()
        panel.set_axis_off()
    figure.suptitle(f"counter-linked: {int(mask.sum())} of {mask.size}", fontsize=11)


def draw_weights(evidence: Evidence, figure: Any) -> None:
    """Fig. 4: the distribution of first-layer weights, ULM beside CLM."""
    arrays = {name: evidence.arrays[name].ravel() for name in COMPARED}
    limit = max(float(np.abs(values).max()) for values in arrays.values())
    edges = np.linspace(-limit, limit, 61)
    (panel,) = panels(figure, 6.4, 3.4)
    for name, values in arrays.items():
        label = f"{NAMES[name]}: standard deviation {values.std():.3f}"
        weights = np.full(len(values), 100 / len(values))
        style = {"color": DEFENSE_COLORS[name], "linewidth": 2, "label": label}
        panel.hist(values, edges, weights=weights, histtype="step", **style)
    panel.set(xlabel="weight in the first layer", ylabel="share of weights (%)")
    _legend_above(panel)


def draw_trajectory(evidence: Evidence, figure: Any) -> None:
    """Fig. 5: one counter-linked and one free weight in all submodels over the retraining."""
    steps = evidence.arrays["step"]
    left, right = panels(figure, 8.4, 3.4, columns=2, sharey=True)
    for panel, kind in ((left, "linked"), (right, "free")):
        for index, values in enumerate(evidence.arrays[kind]):
            parity, color = ("odd", COLORS[4]) if index % 2 else ("even", COLORS[2])
            label = f"{parity} submodels" if index < 2 else None
            panel.plot(steps, values, color=color, linewidth=1.2, label=label)
        panel.set(title=f"a {'counter-linked' if kind == 'linked' else 'free'} weight")
        panel.set_xlabel("training step")
    # Beside a free weight, which hardly moves, there is room.
    right.legend(loc="upper left", fontsize=9)
    left.set_ylabel(f"weight, {len(evidence.arrays['linked'])} submodels")


def draw_examples(evidence: Evidence, figure: Any) -> None:
    """Images of each class at growing eps, with how many submodels still answer right."""
    images, right = evidence.arrays["images"], evidence.arrays["s"]
    rows, columns = right.shape
    grid = panels(figure, 0.85 * columns + 1.1, 1.07 * rows + 0.3, rows, columns)
    for panel, (row, column) in zip(grid, np.ndindex(rows, columns), strict=True):
        pixels = images[row, column].transpose(1, 2, 0)
        panel.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        answer = int(evidence.arrays["answers"][row, column])
        fooled = answer != evidence.arrays["labels"][column]
        color = COLORS[3] if fooled else COLORS[2]
        panel.spines[:].set(visible=True, color=color, linewidth=2.5)
        panel.set_title(f"{answer} ({100 * right[row, column]:.0f}%)", fontsize=8, pad=3)
        if column == 0:
            eps = format_radius(evidence.dataset, float(evidence.arrays["eps"][row]))
            panel.set_ylabel(f"eps {eps}", fontsize=9)


# What draws each kind, with the figure's title, in the report's order.
_DRAWN: Mapping[str, tuple[str, Callable[[Any, Any], None]]] = {
    "curves": ("Robust accuracy at every radius", draw_curves),
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
