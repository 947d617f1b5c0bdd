import re
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
import samples
from msgspec import structs
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.curves import Curve, draw_curves
from randomized_defense_bench.leaderboard.drawing import FOREGROUND, Figure, style
from randomized_defense_bench.leaderboard.paper.evidence import KINDS
from randomized_defense_bench.leaderboard.paper.figures import gallery, transfer_tables
from randomized_defense_bench.leaderboard.paper.study import studies
from samples import gated, record


def study():
    measured = Board([*gated("ulm", 3), *gated("clm", 5)])
    return studies(measured, [samples.evidence(kind) for kind in KINDS])["mnist"]


@pytest.fixture(scope="module")
def drawn():
    return {figure.kind: (figure, figure.svg()) for figure in gallery(study())}


def texts(svg):
    root = ElementTree.fromstring(svg)
    return " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))


def test_all_evidence_has_a_figure(drawn):
    assert drawn.keys() == {*KINDS, "transfer"}
    for figure, svg in drawn.values():
        assert figure.file == f"{figure.kind}-mnist-quick.svg"
        assert svg.startswith("<?xml")
        assert figure.caption.endswith(".")


def test_one_clm_conforms_to_nothing():
    several = samples.evidence("conformity")
    one = structs.replace(
        several, arrays={name: array[:1] for name, array in several.arrays.items()}
    )
    shown = gallery(studies(Board(gated("clm", 5)), [one])["mnist"])
    assert "conformity" not in {figure.kind for figure in shown}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("size", ["networks in the population", "ULM, worst case", "CLM, PGD on one drawn"]),
        ("transfer", ["answered by", "crafted on", "accuracy (%), PGD, eps 0.3"]),
        ("diversity", ["MRA of the pair (%)", "saliency", "PGD on one: ULM –, CLM –"]),
        ("conformity", ["clean images", "CLM, by training seed", "accuracy of each submodel (%)"]),
        ("examples", ["eps 0.3", "7 (0%)", "1 (50%)"]),
        ("masks", ["3 of 9 weights are linked"]),
        ("weights", ["weight in the first layer", "share of weights (%)", "3.0 times as wide"]),
        ("trajectory", ["training step", "even submodels", "odd submodels", "a free weight"]),
        ("saliency", ["cosine of saliency maps", "ULM: mean 0.30", "CLM: mean 0.15"]),
    ],
)  # fmt: skip
def test_labels_and_units_are_there(drawn, kind, words):
    shown = texts(drawn[kind][1])
    assert not [word for word in words if word not in shown], shown


def test_figures_have_no_background_and_no_ink_of_one_theme(drawn):
    """What is black or white on its own would be lost on one of the backgrounds."""
    for kind, (_, svg) in drawn.items():
        body = svg.split("</metadata>")[1]
        inks = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{3,6})", body))
        if kind == "transfer":
            # Numbers on the cells of a heat map stand on the map's own colours.
            inks -= {"#ffffff"}
        assert FOREGROUND in inks, kind
        assert not inks & {"#000000", "#ffffff"}, kind


def test_the_same_data_give_the_same_figure(drawn):
    for figure in gallery(study()):
        assert figure.svg() == drawn[figure.kind][1], figure.kind


def test_captions_have_the_numbers(drawn):
    assert "3 of 9" in drawn["masks"][0].caption
    assert "3.0 times" in drawn["weights"][0].caption
    assert "0.300 for ULM and 0.150 for CLM" in drawn["saliency"][0].caption
    assert "10 images, eps" in drawn["size"][0].caption
    diversity = drawn["diversity"][0].caption
    assert "one of each: 50 under PGD on one, 25 in the worst case." in diversity
    assert "linked 0.025 and 0.200" in drawn["trajectory"][0].caption


def test_the_transfer_caption_tells_the_parities_apart():
    """Even submodels answer images of odd ones right, and the other way round; else they fail."""
    correct = np.zeros((4, 4, 20), bool)
    odd = np.arange(4) % 2
    correct[odd[:, None] > odd] = True
    correct[odd[:, None] < odd, :5] = True
    made = replace(record(1, submodels=4, protocol="transfer"), correct=correct)
    (figure,) = gallery(studies(Board([made]))["mnist"])
    shares = "0 on the network itself, 0 from even to even, 25 from even to odd"
    assert f"ULM: {shares}, 100 from odd to even, 0 from odd to odd." in figure.caption


def test_the_transfer_map_is_that_of_the_smallest_eps_and_lowest_seed():
    def tensor(right, **cell):
        return record(right, attack="pgd", protocol="transfer", **cell)

    tables = transfer_tables([tensor(9, eps=0.4), tensor(5), tensor(7, seed=1)])
    assert tables.eps == "0.3"
    # The first submodel is right on 5 of 20, the second on 4, whoever is attacked.
    np.testing.assert_allclose(tables.accuracies["ulm"], [[0.25, 0.2], [0.25, 0.2]])
    assert transfer_tables([record(5)]) is None


def test_other_defenses_have_a_look_each_and_names_with_mathematics_are_drawn_as_they_are():
    points = dict.fromkeys((0.0, 0.1, 0.2), (0.5, 0.1))
    names = ("$x^2$", "mine 1", "mine 2")
    drawn = [Curve(name, 2, ("pgd",), (0,), points) for name in names]
    svg = Figure("x.svg", b"", partial(draw_curves, drawn)).svg()
    assert "lower $x^2$ from 50% to 10% at eps 0" in texts(svg)
    assert len({(*style(name).values(),) for name in (*names, "ulm", "clm")}) == 5
