import pytest
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.paper import names
from randomized_defense_bench.leaderboard.paper.study import studies
from randomized_defense_bench.leaderboard.paper.tables import compare
from samples import record, row

TABLES = {
    "1": {"attack": "none", "mnist": {"ulm": 97.0, "clm": 50.0}},
    "2": {
        "dataset": "mnist",
        "eps": 0.3,
        "rows": {"pgd": {"ulm": 45.0, "clm": 60.0}, "fgsm": {"ulm": 57.5}, "pgd-eot": {"ulm": 5.0}},
    },
}


def compared(*records):
    found = compare(TABLES, studies(Board(records)))
    return {(one.table, one.attack, one.defense): one for one in found}


def test_every_number_of_the_paper_is_compared_in_the_order_of_its_attacks():
    found = compare(names.TABLES, {})
    second = [one.attack for one in found if one.table == "2" and one.defense == "ulm"]
    assert second == ["fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot"]


@pytest.mark.parametrize(
    ("table", "attack", "right", "paper", "verdict"),
    [
        ("2", "pgd", 995, 0.45, "reproduced"),
        ("2", "fgsm", 1400, 0.575, "not reproduced"),
        ("1", "none", 1958, 0.97, "reproduced"),
        ("1", "none", 1900, 0.97, "not reproduced"),
    ],
)
def test_a_number_is_reproduced_within_five_points_and_clean_accuracy_within_one(
    table, attack, right, paper, verdict
):
    many = {"images": 2000, "submodels": 10, "budget": "paper"}
    ranked = row("ulm", 1, **many, attacks=("worst-case",))[1:]
    found = compared(*ranked, record(right, attack=attack, **many))
    one = found[table, attack, "ulm"]
    # The first of ten submodels is right on one image more than the others.
    assert one.difference == pytest.approx((10 * right - 9) / 20000 - paper)
    assert (one.verdict, one.row.submodels) == (verdict, 10)
    assert found["1", "none", "clm"].reason == "not measured"


@pytest.mark.parametrize(
    ("attack", "cell", "reason"),
    [
        ("pgd", {"budget": "quick"}, "quick budget"),
        ("pgd", {"budget": "paper", "submodels": 4}, "n = 4, the paper's 10"),
        ("pgd", {"budget": "paper", "source": "image folder (jpg)"}, "other images"),
        ("pgd-eot", {"budget": "paper"}, "draws"),
    ],
)
def test_what_is_not_comparable_says_why(attack, cell, reason):
    found = compared(*row("ulm", 9, **cell))["2", attack, "ulm"]
    assert found.verdict == "not comparable"
    assert reason in found.reason
