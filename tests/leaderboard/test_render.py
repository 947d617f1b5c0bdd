import re
from dataclasses import replace

from randomized_defense_bench.leaderboard import baselines
from randomized_defense_bench.leaderboard.render import FIRST_LINE, render
from randomized_defense_bench.leaderboard.speed import Timing
from samples import gated, record, row


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


def tables(text):
    """Every Markdown table of a page, each row by column name."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    cells = [
        [[c.strip() for c in li.strip("|").split("|")] for li in t.splitlines()] for t in found
    ]
    return [[dict(zip(head, row, strict=True)) for row in body] for head, _, *body in cells]


def table(text, *columns):
    """The first table that has these columns."""
    return next(rows for rows in tables(text) if rows and {*columns} <= rows[0].keys())


def ranked(text):
    return [(row["rank"], row["defense"]) for row in table(text, "rank", "defense")]


def test_a_row_says_what_is_known_of_its_defense():
    """Of 20 images: clean 19 and 18, autoattack 9 and 8, the cascade 7 and 6; all in order."""
    alone = record(15, defense="ulm", attack="worst-case", protocol="alone")
    average = record(9, defense="ulm", attack="worst-case", protocol="average")
    (shown,) = table(page([*row("ulm", 7), alone, average]), "rank", "defense")
    values = {column: text.partition(" (")[0] for column, text in shown.items()}
    assert (values["rank"], values["n"], values["seeds"]) == ("–", "2", "0")
    assert (values["clean"], values["claimed"], values["illusion"]) == ("92.5", "42.5", "+10.0")
    # Marked, since the population keeps less than its best member.
    assert (values["best member"], values["gain"], values["averaged"]) == (
        "75.0",
        "-42.5 †",
        "45.0",
    )
    assert re.fullmatch(r"\*\*32\.5 \(\d+\.\d–\d+\.\d\)\*\*", shown["**worst case**"])
    assert shown["training (s)"] == "12"


def test_the_page_says_it_is_generated_and_depends_only_on_the_records():
    records = measured_by_hand()
    assert page(records).splitlines()[0] == FIRST_LINE
    assert page(records) == page(list(reversed(records)))


def test_an_empty_page_says_what_to_do():
    assert "pytest benchmarks/ -k digits" in page([])


def test_budgets_are_never_in_one_table():
    text = page([*row("ulm", 3), *row("clm", 9, budget="smoke")])
    quick, smoke = (part for part in text.split("\n## mnist, ")[1:])
    assert quick.startswith("quick budget")
    assert ranked(quick) == [("–", "ulm")]
    assert smoke.startswith("smoke budget")
    assert ranked(smoke) == [("–", "clm")]


def test_rows_share_a_rank_unless_a_paired_test_tells_them_apart():
    many = {"images": 100, "submodels": 1}
    text = page([*gated("a", 50, **many), *gated("b", 49, **many), *gated("c", 20, **many)])
    assert ranked(text) == [("1=", "a"), ("1=", "b"), ("3", "c")]


def test_a_row_that_fails_a_gate_loses_its_rank_and_the_page_says_why():
    """A sabotaged cascade: it leaves more than other attacks."""
    size = {"images": 1000, "submodels": 1}
    sabotaged = [
        record(500, defense="a", attack="worst-case", **size)
        if (r.case.attack, r.case.protocol) == ("worst-case", "draw")
        else r
        for r in gated("a", 3, **size)
    ]
    text = page([*sabotaged, *gated("b", 5, **size)])
    assert {*ranked(text)} == {("1", "b"), ("–", "a")}
    assert "a fails “no attack beats the cascade”" in text
    gate = next(g for g in table(text, "gate") if g["gate"] == "no attack beats the cascade")
    assert gate["a (n=1)"].startswith("**failed**")
    assert gate["b (n=1)"].startswith("passed")


def test_a_record_from_before_a_gate_does_without_it():
    old = [replace(r, findings=None) for r in gated("a", 3)]
    odd = [replace(r, findings=("no gradient",)) for r in gated("b", 3)]
    assert table(page([*old, *odd]), "gate")[-1] == {
        "gate": "nothing odd before the attacks",
        "a (n=2)": "–",
        "b (n=2)": "**failed**: no gradient",
    }
    assert "nothing odd" not in page(old)


def test_an_undecided_gate_costs_no_rank_and_says_how_many_images_it_takes():
    text = page(gated("a", 3, submodels=1))
    assert ranked(text) == [("1", "a")]
    assert "undecided" in table(text, "rank", "defense")[0]["gates"]
    assert "1,000 images would tell" in text


def test_what_is_not_of_all_seeds_is_said():
    records = [one for seed in (0, 1) for one in row("ulm", 5, seed=seed)]
    extra = [
        record(9, defense="ulm", attack="arc", seed=1),
        record(9, defense="ulm", attack="worst-case", protocol="alone", seed=1),
        record(9, defense="ulm", attack="pgd-mean-ce", seed=0),
    ]
    text = page([*records, *extra])
    assert "ulm: `alone`, `arc`, and all figures computed from them, are of seed 1 only." in text
    assert "ulm: `pgd-mean-ce`, and all figures computed from them, are of seed 0 only." in text
    assert "only." not in page(records)


def test_seconds_are_of_one_seed():
    slow = [replace(one, attack_seconds=9.0) for one in row("ulm", 5, seed=1)]
    text = page([*row("ulm", 5), *slow])
    # 1.5 and 9 seconds; of six attacks and the clean images.
    cascade = next(r for r in table(text, "attack", "images") if r["attack"] == "worst-case")
    assert cascade["ulm (n=2)"].endswith("5.2 s")
    (verdict,) = table(text, "cascade (s), on images")
    assert verdict["training (s)"] == "12"
    assert verdict["cascade (s), on images"] == "5.2 on 20"
    assert verdict["all attacks (s)"] == "37"


def test_what_the_draw_does_is_decomposed():
    transfer = record(10, defense="ulm", attack="pgd", protocol="transfer")
    text = page([*row("ulm", 5), transfer])
    # T = ((10, 9), (10, 9)) / 20; worst case: s = 1 on four images, 1/2 on one; clean: 18 and one.
    (shown,) = table(text, "PGD on")
    assert shown["PGD on"] == "20 images, seed 0"
    assert [shown[name] for name in ("own", "others", "MRA")] == ["47.5"] * 3
    assert shown["1 try"] == "22.5 of 92.5"
    assert shown["2 tries"] == "21.2 of 91.2"
    assert shown["unlimited tries"] == "20.0 of 90.0"


def test_of_random_networks_no_number_of_tries_is_unlimited():
    random = {"submodels": 1, "draws": 4}
    (shown,) = table(page(row("noisy", 5, attacks=("pgd",), **random)), "PGD on")
    # One draw is right on 5 images, the others on 4.
    assert shown["1 try"].startswith("21.2 of ")
    assert shown["2 tries"].startswith("20.0 of ")
    assert shown["5 tries"] == shown["unlimited tries"] == "– of –"


def test_published_figures_stand_in_the_block_of_their_dataset_and_eps():
    text = page([*row("ulm", 5), *row("ulm", 5, dataset="cifar10", eps=8 / 255)])
    cifar, mnist = text.split("\n## ")[1:3]
    if cifar.startswith("mnist"):
        cifar, mnist = mnist, cifar
    assert "CROWN-IBP" in mnist
    assert "CROWN-IBP" not in cifar
    assert "ARC (Dbouk and Shanbhag)" in cifar
    assert "ARC (Dbouk and Shanbhag)" not in mnist


def test_a_row_without_all_attacks_or_all_gates_has_no_rank():
    text = page([*gated("a", 5), *row("ungated", 4), record(19, defense="weakly-attacked")])
    assert ranked(text) == [("1", "a"), ("–", "ungated"), ("–", "weakly-attacked")]
    assert "A dash in the rank column" in text


def test_a_model_of_robustbench_s_stands_beside_what_is_published_of_it():
    """42.22% on CIFAR-10 at 8/255; here its worst case is 10 of 20."""
    named = {"defense_parameters": {"robustbench": "Wong2020Fast", "trained_for": "Linf"}}
    case = {"dataset": "cifar10", "submodels": 1, **named}

    def models(eps):
        measured = row("robustbench-wong2020fast", 10, eps=eps, **case)
        return [t for t in tables(page(measured)) if "difference" in t[0]]

    (((line,),)) = models(8 / 255)
    assert line["model"] == "[Wong2020Fast](https://arxiv.org/abs/2001.03994)"
    published = float(line["robust, published"])
    assert line["worst case"].startswith("50.0 (")
    assert line["difference"].startswith(f"{50 - published:+.1f} (")
    assert models(4 / 255) == []


def test_published_rows_stand_apart_with_their_evaluator():
    text = page(row("ulm", 3)).split("## Published elsewhere")[1]
    (published,) = tables(text)
    names = {r["architecture"] for r in published}
    assert {"ResNet-18", "PreActResNet-18", "WideResNet-28-10", "WideResNet-34-10"} <= names
    assert [int(r["rank"]) for r in published[:10]] == list(range(1, 11))
    robust = [float(r["robust"]) for r in published]
    assert robust == sorted(robust, reverse=True)
    assert {r["evaluator"] for r in published} == {"AutoAttack", "external evaluation"}
    assert "78fcc9e48a07" in text
    assert "2025-03-31" in text


def test_a_device_has_a_block_of_its_own_and_zero_has_no_ratio():
    slow = timed_by_hand().environment
    gpu = timed_by_hand(others={"nothing": 0.0}, environment={**slow, "device": "NVIDIA X"})
    text = page([], [timed_by_hand(), gpu])
    cpu, nvidia = text.split("### On ")[1:]
    ratios = {r["beside"]: r["ratio"] for r in table(cpu, "ratio")}
    assert ratios == {"another tool": "3.00", "the machine's matrix products": "0.25"}
    assert table(nvidia, "ratio")[0]["ratio"] == "–"
