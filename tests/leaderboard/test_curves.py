import numpy as np
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.curves import sweep
from samples import record


def curves(measured):
    (section,) = Board(measured).sections
    return section.curves


def sweeps(measured):
    (section,) = Board(measured).sections
    return [sweep(row) for row in section.swept["Linf"]]


def swept(attack, rights, **cell):
    return [record(right, attack=attack, eps=eps, **cell) for eps, right in rights]


def test_every_point_is_under_the_same_attacks_and_the_worst_is_image_by_image():
    clean = record(20, attack="none")
    fgsm = swept("fgsm", [(0.1, 16), (0.2, 12)])
    pgd = swept("pgd", [(0.1, 18), (0.2, 10)])
    known = swept("pgd-clipped-margin", [(0.1, 11), (0.2, 3)])
    only_once = swept("autoattack", [(0.2, 1)])
    (curve,) = curves([clean, *fgsm, *pgd, *known, *only_once])
    assert curve.attacks == ("fgsm", "pgd", "pgd-clipped-margin")
    # Of two submodels the second is right on one image less.
    expected = [(0.0, 39 / 40, 39 / 40), (0.1, 31 / 40, 21 / 40), (0.2, 19 / 40, 5 / 40)]
    found = [(eps, *pair) for eps, pair in curve.points.items()]
    np.testing.assert_allclose(found, expected)


def test_without_two_radii_or_without_both_attackers_there_is_no_curve():
    clean = record(20, attack="none")
    assert curves([clean, *swept("pgd", [(0.1, 9), (0.2, 5)])]) == []
    once = [*swept("pgd", [(0.1, 9)]), *swept("pgd-clipped-margin", [(0.1, 9)])]
    assert curves([clean, *once]) == []
    assert curves([*swept("pgd", [(0.1, 9), (0.2, 5)]), *swept("arc", [(0.1, 9), (0.2, 5)])]) == []


def test_seeds_with_fewer_attacks_do_not_raise_the_worst_case():
    """A conformity test leaves clean and PGD records of more seeds."""
    clean = [record(20, attack="none", seed=seed) for seed in (0, 1)]
    pgd = swept("pgd", [(0.1, 18), (0.2, 10)])
    known = swept("pgd-clipped-margin", [(0.1, 11), (0.2, 3)])
    more = swept("pgd", [(0.1, 19)], seed=1)
    (curve,) = curves([*clean, *pgd, *known, *more])
    assert curve.seeds == (0,)
    assert curve.points[0.1] == (35 / 40, 21 / 40)


def test_a_sweep_starts_at_the_clean_score_and_needs_three_radii():
    clean = record(20, attack="none")
    pgd = swept("pgd", [(0.1, 18), (0.2, 10), (0.3, 4)])
    found = sweeps([clean, *pgd, *swept("arc", [(0.1, 11), (0.2, 3)])])
    # Of two submodels the second is right on one image less.
    assert found == [{"pgd": {0.0: 39 / 40, 0.1: 35 / 40, 0.2: 19 / 40, 0.3: 7 / 40}}]


def test_a_sweep_is_of_the_same_seeds_at_every_radius():
    clean = [record(20, attack="none", seed=seed) for seed in (0, 1)]
    pgd = swept("pgd", [(0.1, 18), (0.2, 10), (0.3, 4)])
    more = swept("pgd", [(0.2, 20)], seed=1)
    (by_attack,) = sweeps([*clean, *pgd, *more])
    assert by_attack["pgd"][0.2] == 19 / 40


def test_a_population_with_more_attacks_is_drawn_under_those_of_all():
    measured = []
    for name, more in (("ulm", ()), ("clm", ("mifgsm", "worst-case"))):
        measured.append(record(20, attack="none", defense=name))
        for attack in ("pgd", "pgd-clipped-margin", *more):
            measured += swept(attack, [(0.1, 9), (0.2, 5)], defense=name)
    assert {curve.attacks for curve in curves(measured)} == {("pgd", "pgd-clipped-margin")}


def test_sizes_are_curves_of_their_own():
    measured = []
    for n in (1, 2):
        measured.append(record(20, attack="none", submodels=n))
        for attack in ("pgd", "arc"):
            measured += swept(attack, [(0.1, 11), (0.2, 3)], submodels=n)
    found = [(curve.label, curve.submodels) for curve in curves(measured)]
    assert found == [("ulm", 1), ("ulm", 2)]
