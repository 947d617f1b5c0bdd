import re
from dataclasses import replace

import pytest
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.pages import FIRST_LINE, pages, result
from samples import CLAIM, gated, masked, record, row


def page(records, name="LEADERBOARD.md"):
    return pages(Board(records))[name]


def shown(records, defense="ulm"):
    """A defense's page."""
    return page(records, f"defenses/{defense}.md")


def figures(text):
    """The columns of the first row of a defense's page."""
    return {line["figure"]: line["value"] for line in table(text, "figure", "value")}


def measured_by_hand():
    sweep = [
        record(right, defense=defense, attack="pgd", eps=eps, headline=False)
        for defense, start in (("ulm", 12), ("clm", 16))
        for eps, right in ((0.1, start), (0.2, start - 2))
    ]
    incomplete = [record(8, defense="mine", attack="pgd", submodels=1)]
    quick = [*row("ulm", 3), *row("ulm", 5, seed=1), *gated("clm", 7), *incomplete, *sweep]
    return [*quick, *row("ulm", 6, budget="smoke", dataset="digits")]


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
    rows = table(text, "rank", "defense")
    return [(row["rank"], row["defense"].strip("[]")) for row in rows]


def test_a_row_says_what_is_known_of_its_defense():
    """Of 20 images: clean 19 and 18, autoattack 9 and 8, the cascade 7 and 6; all in order."""
    alone = record(15, defense="ulm", attack="worst-case", protocol="alone")
    average = record(9, defense="ulm", attack="worst-case", protocol="average")
    records = [*row("ulm", 7), alone, average]
    cells = figures(shown(records))
    values = {column: text.partition(" (")[0] for column, text in cells.items()}
    assert (values["rank"], values["cost"], values["trained"]) == ("–", "1 of 2", "once")
    assert (values["clean"], values["claimed"]) == ("92.5", "42.5")
    # Marked, since the population keeps less than its best member.
    assert (values["best member"], values["gain"], values["averaged"]) == (
        "75.0",
        "-42.5 †",
        "45.0",
    )
    low, high = map(float, re.fullmatch(r"≤32\.5 \((.*)–(.*)\)", cells["worst case"]).groups())
    assert values["training (s)"] == "12"
    (line,) = table(page(records), "rank", "defense")
    assert line["worst case"] == f"≤32.5±{max(high - 32.5, 32.5 - low):.1f}"
    assert (line["random"], line["cost"]) == ("one of 2", "1 of 2")


def test_the_page_says_it_is_generated_and_depends_only_on_the_records():
    records = measured_by_hand()
    texts = pages(Board(records))
    assert {text.splitlines()[0] for text in texts.values()} == {FIRST_LINE}
    assert texts == pages(Board(list(reversed(records))))


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
    assert ranked(text) == [("1–2", "a"), ("1–2", "b"), ("3", "c")]


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
    # a is an upper bound, and leads b by less than is significant.
    assert {*ranked(text)} == {("1–2", "b"), ("–", "a")}
    assert "*≤*: the truth may be lower, since an attack is missing or a check failed." in text
    details = shown([*sabotaged, *gated("b", 5, **size)], "a")
    assert "a fails “the cascade is the strongest attack”" in details
    outcomes = {gate["gate"]: gate["outcome"] for gate in table(details, "gate")}
    assert outcomes["the cascade is the strongest attack"] == "**failed**"


def test_the_page_says_on_how_many_images_worst_cases_are():
    sizes = {"ulm": 1000, "clm": 1000, "rnd": 200, "single": 2000}
    measured = [r for name, n in sizes.items() for r in row(name, 5, test_images=2000, images=n)]
    few = [r for r in measured if r.case.defense != "single"]
    every = [r for r in few if r.case.defense != "rnd"]
    every_but = "\nWorst cases: first 1,000 images for clm, ulm, 200 for rnd.\n"
    assert every_but in page(measured)
    assert "\nWorst cases: first 1,000 images, 200 for rnd.\n" in page(few)
    assert "\nWorst cases: first 1,000 images.\n" in page(every)
    assert "Worst cases" not in page([r for r in measured if r.case.defense == "single"])


def test_a_record_from_before_a_gate_does_without_it():
    old = [replace(r, findings=None) for r in gated("a", 3)]
    odd = [replace(r, findings=("no gradient",)) for r in gated("b", 3)]
    assert table(shown(odd, "b"), "gate")[-1] == {
        "gate": "nothing odd before the attacks",
        "outcome": "**failed**",
        "figure": "no gradient",
    }
    assert "nothing odd" not in shown(old, "a")


def test_an_undecided_gate_costs_no_rank_and_says_how_many_images_it_takes():
    measured = gated("a", 3, submodels=1)
    assert ranked(page(measured)) == [("1", "a")]
    text = shown(measured, "a")
    assert "undecided" in figures(text)["gates"]
    assert "1,000 images would tell" in text


def test_what_is_not_of_all_seeds_is_said():
    records = [one for seed in (0, 1) for one in row("ulm", 5, seed=seed)]
    extra = [
        record(9, defense="ulm", attack="arc", seed=1),
        record(9, defense="ulm", attack="worst-case", protocol="alone", seed=1),
        record(9, defense="ulm", attack="pgd-mean-ce", seed=0),
    ]
    text = shown([*records, *extra])
    assert "`alone`, `arc`, and all figures computed from them, are of seed 1 only." in text
    assert "`pgd-mean-ce`, and all figures computed from them, are of seed 0 only." in text
    assert "only." not in shown(records)


def test_seconds_are_of_one_seed():
    slow = [replace(one, attack_seconds=9.0) for one in row("ulm", 5, seed=1)]
    text = shown([*row("ulm", 5), *slow])
    # 1.5 and 9 seconds; of six attacks and the clean images.
    cascade = next(r for r in table(text, "attack", "images") if r["attack"] == "worst-case")
    assert (cascade["seconds"], cascade["images"]) == ("5.2", "20")
    values = figures(text)
    assert (values["training (s)"], values["attacks (s)"]) == ("12", "37")


def test_what_the_draw_does_is_decomposed():
    transfer = record(10, defense="ulm", attack="pgd", protocol="transfer")
    text = shown([*row("ulm", 5), transfer])
    # T = ((10, 9), (10, 9)) / 20; worst case: s = 1 on four images, 1/2 on one; clean: 18 and one.
    assert "under PGD on 20 images, seed 0" in text
    assert text.count("47.5%") == 3
    attacked, clean = table(text, "1 try")
    assert (attacked["1 try"], clean["1 try"]) == ("22.5", "92.5")
    assert (attacked["2 tries"], clean["2 tries"]) == ("21.2", "91.2")
    assert (attacked["unlimited tries"], clean["unlimited tries"]) == ("20.0", "90.0")


def test_of_random_networks_no_number_of_tries_is_unlimited():
    random = {"submodels": 1, "draws": 4}
    text = shown(row("noisy", 5, attacks=("pgd",), **random), "noisy")
    attacked = table(text, "1 try")[0]
    # One draw is right on 5 images, the others on 4.
    assert (attacked["1 try"], attacked["2 tries"]) == ("21.2", "20.0")
    assert attacked["5 tries"] == attacked["unlimited tries"] == "–"


def test_a_row_without_all_attacks_or_all_gates_has_no_rank():
    text = page([*gated("a", 5), *row("ungated", 4), record(19, defense="weakly-attacked")])
    # The last leads a, but may be lower: a may be first, too, and nobody knows.
    assert ranked(text) == [("–", "a"), ("–", "ungated"), ("–", "weakly-attacked")]


CONTROL = {"submodels": 1, "images": 1000}
LINKED = {"submodels": 2, "images": 1000, "defense_parameters": {"recipe": {"epochs": 3}, "n": 2}}


def verdict(claimed, worst, control=None):
    """Of a population whose authors' attacks and worst case leave so many of 1,000 images.

    Of the same network without the randomness 300 and about as many.
    """
    attacks = dict.fromkeys(("fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot"), claimed)
    measured = gated("linked", worst, attacks={**attacks, "worst-case": worst}, **LINKED)
    control = gated("single", 300, **CONTROL) if control is None else control
    (line,) = (r for r in table(page([*measured, *control]), "rank") if r["defense"] == "[linked]")
    return line["verdict"]


def test_a_verdict_says_how_much_of_the_gain_over_the_control_survives():
    assert verdict(700, 650) == "holds up"
    assert verdict(900, 400) == "partly"
    assert verdict(700, 300) == "collapses"
    assert verdict(301, 300) == "no gain"
    assert verdict(308, 303) == "undecided"


def test_there_is_no_verdict_without_a_control_that_is_made_alike_and_none_on_failed_checks():
    assert verdict(700, 300, control=[]) == "–"
    other = {**CONTROL, "defense_parameters": {"recipe": {"epochs": 4}}}
    assert verdict(700, 300, control=gated("single", 300, **other)) == "–"
    # Given to `judge`: how it was made is not known.
    unknown = gated("single", 300, **CONTROL, defense_parameters={})
    assert verdict(700, 300, control=unknown) == "–"
    failing = masked(gated("single", 300, **CONTROL), "single")
    assert verdict(700, 300, control=failing) == "undecided"


@pytest.mark.parametrize(
    ("claimed", "worst", "word"),
    # What survives can only become less, and what is claimed does not rest on the checks.
    [(700, 300, "collapses"), (301, 300, "no gain"), (700, 650, "undecided")],
)
def test_where_checks_of_the_defense_alone_fail_only_what_they_cannot_change_is_said(
    claimed, worst, word
):
    attacks = dict.fromkeys(("fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot"), claimed)
    linked = gated("linked", worst, attacks={**attacks, "worst-case": worst}, **LINKED)
    text = page([*masked(linked, "linked"), *gated("single", 300, **CONTROL)])
    (line,) = (r for r in table(text, "rank") if r["defense"] == "[linked]")
    assert (line["rank"], line["verdict"]) == ("–", word)
    assert line["worst case"].startswith("≤")


def test_the_readme_s_part_is_the_finding_a_table_and_a_figure():
    measured = [*gated("linked", 300, **LINKED), *gated("single", 300, **CONTROL)]
    text = result(Board(measured))
    assert text.count("| defense ") == 1
    assert "[linked]: leaderboard/defenses/linked.md" in text
    assert "| cost" not in text
    assert result(Board([])) == "Nothing has been measured yet."


def test_a_defense_s_page_says_how_to_measure_it_again():
    text = shown([*row("ulm", 3), *row("ulm-adv", 5), *row("clm", 3)])
    command = re.search(r'-k "(.*)" --budget quick --rerun', text)[1]
    assert command == "mnist-ulm- and not mnist-ulm-adv-"


def test_a_ranking_says_how_often_each_row_was_trained():
    """In words, since another training may differ by more than the interval says."""
    three = [one for seed in range(3) for one in row("clm", 7, seed=seed)]
    text = page(
        [
            *row("ulm", 5),
            *row("single", 4, submodels=1),
            *row("single", 4, submodels=1, seed=1),
            *three,
        ]
    )
    told = {row["defense"]: row["trained"] for row in table(text, "rank", "defense")}
    assert told == {"[clm]": "3 times", "[single]": "twice", "[ulm]": "once"}
    assert "*Once*: another training may differ by more than ±." in text
    assert "*Once*" not in page(three)


def test_a_network_without_parameters_has_its_row_of_the_populations_table():
    """As one that was given to `judge`: an empty cell would end the row."""
    text = shown(gated("ulm", 5, defense_parameters={}))
    (row,) = table(text, "weights sha256", "how it was made")
    assert (row["seed"], row["how it was made"], row["date"]) == ("0", "–", "2026-01-02")


def test_a_worst_case_above_the_claimed_accuracy_is_explained():
    """5 of 20 images are left of the claim, the first; of the first 10 all attacks leave 5."""
    drawn = [record(5, attack=attack, submodels=1) for attack in CLAIM]
    clean = record(20, attack="none", submodels=1)
    cascade = record(5, attack="worst-case", submodels=1, images=10)
    cascade = replace(cascade, case=replace(cascade.case, test_images=20))
    text = shown([clean, *drawn, cascade])
    assert "– ≤ 50.0 ≤ 25.0, but for other images or draws." in text
    assert "but for other images" not in shown([clean, *drawn])
