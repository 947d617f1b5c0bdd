import pytest
from samples import record, row

from leaderboard import baselines
from leaderboard.comparison import compare, counts
from leaderboard.studies import studies

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
    assert counts(found) == {"reproduced": 0, "not reproduced": 0, "not comparable": 68}


def test_a_number_is_reproduced_within_five_points_or_inside_the_interval():
    # 20 images, two submodels: MRA 9.5 / 20 under PGD, 15.5 / 20 under FGSM.
    many = {"images": 2000, "submodels": 1, "budget": "paper"}
    found = compared(
        *row("ulm", 1, **many, attacks=("worst-case",)),
        record(995, attack="pgd", **many),
        record(1400, attack="fgsm", **many),
    )
    pgd, fgsm = found["2", "pgd", "ulm"], found["2", "fgsm", "ulm"]
    assert pgd.difference == pytest.approx(0.4975 - 0.45)
    assert (pgd.verdict, pgd.submodels) == ("reproduced", 1)
    assert fgsm.difference == pytest.approx(0.7 - 0.575)
    assert fgsm.verdict == "not reproduced"
    few = compared(
        *row("ulm", 1, attacks=("worst-case",), budget="paper"),
        record(14, attack="fgsm", budget="paper"),
    )
    # 0.675, twenty images: the paper's number lies in our interval.
    assert few["2", "fgsm", "ulm"].verdict == "reproduced"
    assert found["1", "none", "ulm"].verdict == "reproduced"
    assert found["1", "none", "clm"].reason == "not measured"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ({"budget": "quick"}, "quick budget"),
        ({"budget": "paper", "source": "image folder (jpg)"}, "other images"),
    ],
)
def test_what_is_not_comparable_says_why(cell, reason):
    found = compared(*row("ulm", 9, **cell))
    assert (found["2", "pgd", "ulm"].verdict, found["2", "pgd", "ulm"].reason) == (
        "not comparable",
        reason,
    )


def test_their_expectation_is_another_attack():
    found = compared(*row("ulm", 9, budget="paper"))["2", "pgd-eot", "ulm"]
    assert found.verdict == "not comparable"
    assert "draws" in found.reason
