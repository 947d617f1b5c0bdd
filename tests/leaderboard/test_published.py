"""What others publish, and their attacks beside the worst case."""

from dataclasses import replace

import pytest
from randomized_defense_bench.leaderboard import records as files
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.published.report import report
from samples import gated, record, row
from test_pages import table, tables


@pytest.fixture
def page(tmp_path):
    """A page of records, and of those of others' attacks: (records, peers) -> text."""

    def render(records, name="PUBLISHED.md", peers=()):
        for one in peers:
            files.write(one, tmp_path / "peers")
        return report(Board(records), tmp_path)[0][name]

    return render


def test_published_figures_stand_in_the_block_of_their_dataset_and_eps(page):
    records = [*row("ulm", 5), *row("ulm", 5, dataset="cifar10", eps=8 / 255)]
    cifar, mnist = page(records, "PUBLISHED.md").split("\n## ")[1:3]
    if cifar.startswith("mnist"):
        cifar, mnist = mnist, cifar
    assert "CROWN-IBP" in mnist
    assert "CROWN-IBP" not in cifar
    assert "ARC (Dbouk and Shanbhag)" in cifar
    assert "ARC (Dbouk and Shanbhag)" not in mnist


def test_a_model_of_robustbench_s_stands_beside_what_is_published_of_it(page):
    """42.22% on CIFAR-10 at 8/255; here its worst case is 10 of 20."""
    named = {"defense_parameters": {"robustbench": "Wong2020Fast", "trained_for": "Linf"}}
    case = {"dataset": "cifar10", "submodels": 1, **named}

    def models(eps):
        measured = row("robustbench-wong2020fast", 10, eps=eps, **case)
        text = page(measured, "PUBLISHED.md")
        return [t for t in tables(text) if t and "difference" in t[0]]

    (((line,),)) = models(8 / 255)
    assert line["model"] == "[Wong2020Fast](https://arxiv.org/abs/2001.03994)"
    published = float(line["robust, published"])
    assert line["worst case"].startswith("50.0 (")
    assert line["difference"].startswith(f"{50 - published:+.1f} (")
    assert models(4 / 255) == []


def test_published_rows_stand_apart_with_their_evaluator(page):
    text = page(row("ulm", 3), "PUBLISHED.md").split("## RobustBench, CIFAR-10")[1]
    (published,) = tables(text)
    names = {r["architecture"] for r in published}
    assert {"ResNet-18", "PreActResNet-18", "WideResNet-28-10", "WideResNet-34-10"} <= names
    assert [int(r["rank"]) for r in published[:10]] == list(range(1, 11))
    robust = [float(r["robust"]) for r in published]
    assert robust == sorted(robust, reverse=True)
    assert {r["evaluator"] for r in published} == {"AutoAttack", "external evaluation"}
    assert "78fcc9e48a07" in text
    assert "2025-03-31" in text


def test_a_dispute_stands_beside_what_was_measured(page):
    text = page(row("rpf", 3))
    by_defense = {line["defense"]: line for line in table(text, "disputed")}
    told = by_defense["Random projection filters"]
    assert "EOT-PGD-20" in told["disputed"]
    assert told["measured here"].startswith("mnist, Linf 0.3: ")
    assert told["measured here"].endswith("22.5 → 12.5")
    assert by_defense["TRS"]["measured here"] == "not measured"


def test_others_attacks_stand_beside_the_worst_case_on_the_images_of_both(page):
    """The worst case leaves 8 of 40 images, on the first 20 of them all 8."""
    measured = gated("ulm", 8, images=40)
    peers = {"pgd-eot": 2, "arc": 10, "autoattack-rand": 8}
    others = [record(right, defense="ulm", attack=name) for name, right in peers.items()]
    (line,) = table(page(measured, "PEERS.md", others), "worst case")
    shown = {name: line[name] for name in ("images", "worst case", "arc", "autoattack-rand")}
    # Of two members one is right on one image less.
    expected = {"images": "20", "worst case": "37.5", "arc": "47.5", "autoattack-rand": "37.5"}
    assert shown == expected
    assert line["pgd-eot"] == "**7.5**"
    text = page(measured, "PEERS.md")
    assert "significantly above in 1 of these" in text


def test_attacks_on_other_weights_are_not_shown(page):
    other = replace(record(5, attack="pgd-eot"), population_sha256="0" * 64)
    assert "Nothing has been measured" in page(gated("ulm", 8), "PEERS.md", [other])
