import re
from dataclasses import replace
from pathlib import Path

import pytest
from samples import gated, record, row

from leaderboard import baselines, plots
from leaderboard.markdown import escape
from leaderboard.render import FIRST_LINE, render
from leaderboard.rows import Setting
from leaderboard.speed import Timing

GOLDEN = Path(__file__).parent / "golden.md"


def page(records, timings=()):
    return render(records, timings, baselines.load())


def measured_by_hand():
    sweep = [
        record(right, defense=defense, attack="pgd", eps=eps, headline=False)
        for defense, start in (("ulm", 12), ("clm", 16))
        for eps, right in ((0.1, start), (0.2, start - 2))
    ]
    incomplete = [record(8, defense="mine", attack="pgd", submodels=1)]
    quick = [*row("ulm", 3), *row("ulm", 5, seed=1), *gated("clm", 7), *incomplete, *sweep]
    return [*quick, *row("ulm", 6, budget="smoke", dataset="digits")]


def timed_by_hand(**changes):
    fields = {
        "name": "crafting",
        "budget": "quick",
        "work": "PGD-40 on 10 networks",
        "unit": "gradients/s",
        "ours": 21_000.0,
        "others": {"another tool": 7_000.0, "the machine's matrix products": 84_000.0},
        "growth": {"n = 1": 0.5, "n = 2": 1.0},
        "note": "stacked",
        "measured_at": "2026-01-02T03:04:05+00:00",
        "environment": {"device": "cpu", "processor": "A <b>", "threads": "2", "torch": "2.9"},
    }
    return Timing(**{**fields, **changes})


def measured_part():
    return page(measured_by_hand(), [timed_by_hand()]).split("## Published elsewhere")[0]


def test_the_page_is_what_it_was():
    """After a wanted change, `python tests/leaderboard/test_render.py` writes it anew: read it."""
    assert measured_part() == GOLDEN.read_text()


def test_the_page_says_it_is_generated_and_depends_only_on_the_records():
    records = measured_by_hand()
    assert page(records).splitlines()[0] == FIRST_LINE
    assert page(records) == page(list(reversed(records)))


def test_an_empty_page_says_what_to_do():
    assert "pytest benchmarks/ -k digits" in page([])


def tables(text):
    """Every Markdown table of a page, as lists of cells by row."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    return [[line.strip("|\n").split("|") for line in t.splitlines()] for t in found]


def test_budgets_are_never_in_one_table():
    text = page([*row("ulm", 3), *row("clm", 9, budget="smoke")])
    ranked = [t for t in tables(text) if t[0][0].strip() == "rank" and "clean" in str(t[0])]
    ours = [t for t in ranked if "defense" in str(t[0])]
    assert [[r[1].strip() for r in t[2:]] for t in ours] == [["ulm"], ["clm"]]
    assert "mnist, quick budget" in text
    assert "mnist, smoke budget" in text


def test_rows_share_a_rank_unless_a_paired_test_tells_them_apart():
    many = {"images": 100, "submodels": 1}
    text = page([*gated("a", 50, **many), *gated("b", 49, **many), *gated("c", 20, **many)])
    ranked = tables(text)[0][2:]
    assert [(r[0].strip(), r[1].strip()) for r in ranked] == [("1=", "a"), ("1=", "b"), ("3", "c")]


def test_a_row_that_fails_a_gate_loses_its_rank_and_the_page_says_why():
    """A sabotaged cascade: it leaves more than one of its own parts."""
    sabotaged = [
        record(18, defense="a", attack="worst-case", submodels=1)
        if (r.case.attack, r.case.protocol) == ("worst-case", "draw")
        else r
        for r in gated("a", 3, submodels=1)
    ]
    text = page([*sabotaged, *gated("b", 5, submodels=1)])
    ranked = tables(text)[0][2:]
    assert {(r[0].strip(), r[1].strip()) for r in ranked} == {("1", "b"), ("–", "a")}
    assert "a fails “cascade no weaker than its parts”" in text
    assert "**failed**: worst-case" in text


def test_the_paper_s_own_numbers_are_gated_and_failures_printed():
    text = page([])
    block = text.split("## The paper's published numbers, gated")[1].split("## Published")[0]
    (failed,) = tables(block)
    cells = [[cell.strip() for cell in r] for r in failed[2:]]
    first, name = "2 (mnist, eps 0.3)", "iterated no weaker than single-step"
    assert [first, "ulm", name, "pgd 35.94, fgsm 27.68", "+8.3", "–"] in cells
    assert [first, "clm", name, "pgd 54.29, fgsm 51.36", "+2.9", "–"] in cells
    weaker = [c[1] for c in cells if c[2].startswith("ensemble") and c[0][0] == "3"]
    assert weaker == ["clm", "ulm-adv", "clm-adv"]
    # 31.20 against 30.97: the standard error of the difference is 0.7 points.
    (barely,) = (c for c in cells if c[0][0] == "5" and c[1] == "ulm-adv")
    assert barely[4] == "+0.2 ‡"
    assert not [c for c in cells if "pgd-eot" in c[3]]


def test_what_is_not_of_all_seeds_is_said():
    records = [one for seed in (0, 1) for one in row("ulm", 5, seed=seed)]
    extra = [
        record(9, defense="ulm", attack="arc", seed=1),
        record(9, defense="ulm", attack="worst-case", protocol="alone", seed=1),
        record(9, defense="ulm", attack="pgd-mean-ce", seed=0),
    ]
    text = page([*records, *extra])
    assert "ulm: `alone`, `arc` and what is computed from them are of seed 1 alone." in text
    assert "ulm: `pgd-mean-ce` and what is computed from them are of seed 0 alone." in text
    assert "alone." not in page(records)


def test_seconds_are_of_one_seed():
    slow = [replace(one, attack_seconds=9.0) for one in row("ulm", 5, seed=1)]
    text = page([*row("ulm", 5), *slow])
    # 1.5 and 9 seconds; of six attacks and the clean images.
    cascade = next(li for li in text.splitlines() if li.startswith("| worst-case "))
    assert cascade.rstrip(" |").endswith("5.2 s")
    verdict = next(li for li in text.splitlines() if li.startswith("| mnist, quick, 20 images"))
    assert [cell.strip() for cell in verdict.split("|")[4:7]] == ["12", "5.2 on 20", "37"]


def test_clean_images_stand_beside_the_paper_once():
    text = page([*row("ulm", 5), *row("ulm", 4, eps=0.4)])
    assert len(re.findall(r"^\| ulm \(n=2\) \| none ", text, re.M)) == 1


def test_ours_stand_beside_the_gates_that_the_paper_fails():
    """PGD leaves 4 images in 200 more than FGSM, on each of two submodels."""

    def ours(**cell):
        cell = {"images": 200, "submodels": 2, "budget": "paper", **cell}
        text = page([record(104, attack="pgd", **cell), record(100, attack="fgsm", **cell)])
        block = text.split("## The paper's published numbers, gated")[1]
        (line,) = (li for li in block.splitlines() if "pgd 35.94, fgsm 27.68" in li)
        return line.split("|")[-2].strip()

    assert re.fullmatch(r"\+2\.0 \(\+0\.\d to \+\d\.\d\)", ours())
    assert ours(budget="quick") == ours(norm="L2") == ours(source="other images") == "–"


def test_a_population_that_does_not_beat_its_best_member_is_marked():
    alone = record(15, defense="ulm", attack="worst-case", protocol="alone")
    text = page([*row("ulm", 5), alone])
    assert re.search(r"\| 75\.0 +\| -52\.5 † +\|", text)


def test_what_the_draw_does_is_decomposed():
    transfer = record(10, defense="ulm", attack="pgd", protocol="transfer")
    text = page([*row("ulm", 5), transfer])
    # T = ((10, 9), (10, 9)) / 20; worst case: s = 1 on four images, 1/2 on one; clean: 18 and one.
    line = next(li for li in text.splitlines() if li.startswith("| ulm") and " of " in li)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:5] == ["20 images, seed 0", "47.5", "47.5", "47.5"]
    assert cells[5:7] == ["22.5 of 92.5", "21.2 of 91.2"]
    assert cells[-1] == "20.0 of 90.0"


def test_published_figures_stand_in_the_block_of_their_dataset_and_eps():
    text = page([*row("ulm", 5), *row("ulm", 5, dataset="cifar10", eps=8 / 255)])
    cifar, mnist = text.split("## mnist")[0], text.split("## mnist")[1].split("## The paper")[0]
    assert "CROWN-IBP" in mnist
    assert "CROWN-IBP" not in cifar
    assert "ARC (Dbouk and Shanbhag)" in cifar
    assert "ARC (Dbouk and Shanbhag)" not in mnist


def test_a_row_without_all_attacks_or_all_gates_has_no_rank():
    text = page([*gated("a", 5), *row("ungated", 4), record(19, defense="weakly-attacked")])
    ranked = [(r[0].strip(), r[1].strip()) for r in tables(text)[0][2:]]
    assert ranked == [("1", "a"), ("–", "ungated"), ("–", "weakly-attacked")]
    assert "– as a rank: an attack or a check" in text


def test_the_paper_s_figure_and_the_difference_stand_beside_ours():
    text = page(row("ulm", 3))
    beside = next(t for t in tables(text) if "paper" in str(t[0]))
    figures = {r[1].strip(): (r[3].strip(), r[4].strip()) for r in beside[2:]}
    # Ours: 5/20 and 4/20 correct under autoattack; the paper has 22.80.
    assert figures["autoattack"] == ("22.80", f"{22.5 - 22.8:+.1f}")
    assert figures["none"] == ("99.04", f"{92.5 - 99.04:+.1f}")


def test_images_from_another_source_are_no_reproduction():
    text = page(row("ulm", 3, dataset="cifar10", eps=8 / 255, source="image folder (jpeg)"))
    assert "images from another source (image folder (jpeg)): no reproduction" in text
    assert "eps = 8/255" in text


def test_published_rows_stand_apart_with_their_evaluator():
    text = page(row("ulm", 3)).split("## Published elsewhere")[1]
    (published,) = tables(text)
    names = [r[2].strip() for r in published[2:]]
    assert {"ResNet-18", "PreActResNet-18", "WideResNet-28-10", "WideResNet-34-10"} <= set(names)
    assert [int(r[0]) for r in published[2:12]] == list(range(1, 11))
    robust = [float(r[5]) for r in published[2:]]
    assert robust == sorted(robust, reverse=True)
    assert {r[6].strip() for r in published[2:]} == {"AutoAttack", "external evaluation"}
    assert "78fcc9e48a07" in text
    assert "2025-03-31" in text


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "a|b", "a\n| b |", "[x](javascript:1)", "`x`", "**x**"]
)
def test_markup_in_a_name_is_inert(hostile):
    records = row(hostile, 3)
    text = page(records)
    assert hostile not in text
    widths = {len(r) for t in tables(text)[:1] for r in t}
    assert len(widths) == 1
    assert not re.search(r"[<>|`*\[\]\n]", escape(hostile))


def test_figures_are_named_by_what_they_show_and_are_the_same_every_time():
    records = measured_by_hand()
    drawn = plots.figures(records)
    name = plots.sweep_file_name(Setting("mnist", "quick", "torchvision MNIST", "01234567", 20, 1))
    assert list(drawn) == [name] == ["sweep-mnist-quick-01234567-20.svg"]
    assert drawn == plots.figures(records)
    assert drawn[name].startswith("<?xml")
    assert name in page(records)


def test_a_device_has_a_block_of_its_own_and_zero_has_no_ratio():
    machine = {"device": "NVIDIA X", "processor": "X", "threads": "2", "torch": "2.9"}
    gpu = timed_by_hand(others={"nothing": 0.0}, environment=machine)
    text = page([], [timed_by_hand(), gpu])
    assert text.count("### On ") == 2
    assert "| 3.00 " in text
    assert "| 0.25 " in text
    assert re.search(r"nothing +\| 0 +\| – ", text)


if __name__ == "__main__":
    GOLDEN.write_text(measured_part())
