import samples
from samples import record, row

from benchmarks import budgets
from leaderboard.studies import studies
from leaderboard.table import BUDGETS


def test_budgets_are_known_in_their_order():
    assert BUDGETS == budgets.BUDGETS


def test_the_largest_budget_counts_with_the_evidence_of_the_same_data():
    measured = [*row("ulm", 3), *row("ulm", 5, budget="paper"), *row("ulm", 4, budget="mine")]
    drawn = row("ulm", 9, budget="paper", images_per_draw=100, images=200)
    same = samples.evidence("masks", budget="paper")
    others = [
        samples.evidence("masks"),
        samples.evidence("weights", budget="paper", sha256="f" * 64),
        samples.evidence("masks", budget="paper", seed=1),
    ]
    study = studies([*measured, *drawn], [same, *others])["mnist"]
    assert (study.setting.budget, study.setting.images) == ("paper", 20)
    assert {kind: one.seed for kind, one in study.evidence.items()} == {"masks": 0}


def test_a_row_is_the_complete_one_of_most_submodels():
    few = [record(9, attack="pgd", submodels=5)]
    study = studies([*row("ulm", 3), *row("ulm", 5, submodels=3), *few], [])["mnist"]
    assert study.row("ulm", 0.3).submodels == 3
    assert study.row("ulm", 0.0).score("none").value == study.row("ulm", 0.3).score("none").value
    assert study.row("ulm", 0.4) is None
    assert study.row("clm", 0.3) is None
