import samples
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.paper.study import studies
from samples import grid, record, row, training


def test_the_largest_budget_counts_with_the_evidence_of_the_same_weights_and_radius():
    measured = [
        *row("ulm", 3),
        *(one for name in ("ulm", "clm") for one in row(name, 5, budget="paper")),
        *row("ulm", 4, budget="mine"),
    ]
    fewer = row("ulm", 9, budget="paper", images=18)
    same = samples.evidence("masks", budget="paper")
    others = [
        samples.evidence("masks"),
        samples.evidence("weights", budget="paper", sha256="f" * 64),
        samples.evidence("weights", budget="paper", populations={"ulm": "e" * 64}),
        samples.evidence("size", budget="paper", parameters={"eps": 0.05}),
        samples.evidence("masks", budget="paper", seed=1),
    ]
    study = studies(Board([*measured, *fewer]), [same, *others])["mnist"]
    assert (study.setting.budget, study.setting.images) == ("paper", 20)
    assert {kind: one.seed for kind, one in study.evidence.items()} == {"masks": 0}


def test_adversarially_trained_networks_are_studied_at_the_largest_radius():
    measured = [one for eps in (0.3, 0.4) for one in row("ulm", 5, budget="paper", eps=eps)]

    def shown(kind, eps, **changes):
        tried = grid(kind, training("ulm", {"pgd": 0.5}), eps=eps, **changes)
        return kind in studies(Board(measured), [], [tried])["mnist"].grids

    assert shown("variants-adv", 0.4)
    # Ranked at another radius, too, the paper's are studied.
    measured += row("ulm", 5, budget="paper", eps=0.5)
    assert shown("variants-adv", 0.4)
    assert not shown("variants-adv", 0.3)
    assert shown("variants", 0.3, populations={"ulm": samples.weights_sha256("ulm")})
    assert not shown("variants", 0.3, populations={"ulm": "e" * 64})
    assert not shown("variants", 0.4)


def test_a_row_is_the_complete_one_of_most_submodels_as_the_paper_trains_it():
    few = [record(9, attack="pgd", submodels=5)]
    scratch = row("ulm", 9, submodels=3, defense_parameters={"from_scratch": True})
    study = studies(Board([*row("ulm", 3), *row("ulm", 5, submodels=3), *scratch, *few]))["mnist"]
    assert study.entry("ulm", 0.3).row.submodels == 3
    assert study.entry("ulm", 0.3).row.score("worst-case").value < 0.3
    assert study.entry("ulm", 0.4) is None
    assert study.entry("clm", 0.3) is None


def test_clean_images_are_those_of_the_ranked_row():
    sweep = [record(9, attack="pgd", eps=0.1, headline=False, submodels=3)]
    clean = [record(20, attack="none", submodels=3)]
    study = studies(Board([*row("ulm", 5), *sweep, *clean]))["mnist"]
    assert study.entry("ulm", 0.0).row.submodels == 2


def test_what_stands_in_the_way_of_a_verdict():
    def obstacle(**cell):
        return studies(Board(row("ulm", 5, **cell)))["mnist"].obstacle

    assert obstacle() == ""
    assert obstacle(budget="smoke") == "smoke budget"
    assert obstacle(budget="paper") == ""
    assert obstacle(budget="paper", source="image folder (jpg)") == "other images"
