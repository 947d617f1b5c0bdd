import pytest
from samples import record, row

from leaderboard import baselines
from leaderboard.paper.comparison import compare
from leaderboard.paper.studies import studies

TABLES = {
    "1": {"attack": "none", "mnist": {"ulm": 97.0, "clm": 50.0}},
    "2": {
        "dataset": "mnist",
        "eps": 0.3,
        "rows": {"pgd": {"ulm": 45.0, "clm": 60.0}, "fgsm": {"ulm": 57.5}, "pgd-eot": {"ulm": 5.0}},
    },
}


def compared(*records):
    found = compare(TABLES, studies(records, []))
    return {(one.table, one.attack, one.defense): one for one in found}


def test_every_number_of_the_paper_is_compared_in_the_order_of_its_attacks():
    found = compare(baselines.load().paper["tables"], {})
    assert len(found) == 8 + 20 + 20 + 10 + 10
    assert {one.reason for one in found} == {"not measured"}
    second = [one.attack for one in found if one.table == "2" and one.defense == "ulm"]
    assert second == ["fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot"]
    assert {one.verdict for one in found} == {"not comparable"}


def test_a_number_is_reproduced_within_five_points():
    many = {"images": 2000, "submodels": 10, "budget": "paper"}
    found = compared(
        *row("ulm", 1, **many, attacks=("worst-case",)),
        record(995, attack="pgd", **many),
        record(1400, attack="fgsm", **many),
    )
    pgd, fgsm = found["2", "pgd", "ulm"], found["2", "fgsm", "ulm"]
    # The first of ten submodels is right on one image more than the others.
    assert pgd.difference == pytest.approx(9941 / 20000 - 0.45)
    assert (pgd.verdict, pgd.submodels) == ("reproduced", 10)
    assert fgsm.difference == pytest.approx(13991 / 20000 - 0.575)
    assert fgsm.verdict == "not reproduced"
    assert found["1", "none", "clm"].reason == "not measured"


def test_clean_accuracy_is_reproduced_within_one_point():
    def verdict(right):
        many = {"images": 1000, "submodels": 10, "budget": "paper"}
        clean = record(right, attack="none", **many)
        found = compared(clean, record(9, attack="pgd", **many))["1", "none", "ulm"]
        # The first of ten submodels is right on one image more than the others.
        assert found.difference == pytest.approx(right / 1000 - 0.97, abs=0.001)
        return found.verdict

    # 97.0 in the table.
    assert verdict(979) == "reproduced"
    assert verdict(950) == "not reproduced"


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
