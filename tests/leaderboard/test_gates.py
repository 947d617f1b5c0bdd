"""Every gate passes on a sound row and fails on its own defect."""

from dataclasses import replace

import numpy as np
import pytest
from randomized_defense_bench.leaderboard import gates
from randomized_defense_bench.leaderboard.paper.study import outcome
from randomized_defense_bench.leaderboard.rows import populations, rows
from samples import gated, record

from randomized_defense_bench.metrics import Score

SIZE = {"images": 1000, "submodels": 2}


def checked(records):
    (row,) = rows(populations(records), "Linf", 0.3)
    return {gate.name: gate for gate in gates.check(row)}


def sound():
    return gated("ulm", 20, **SIZE)


def changed(attack, protocol="draw", eps=0.3, **changes):
    """The sound row with one record changed."""

    def matches(case):
        return (case.attack, case.protocol, case.eps) == (attack, protocol, eps)

    return [replace(r, **changes) if matches(r.case) else r for r in sound()]


RIGHT, WRONG = np.ones((2, 1000), bool), np.zeros((2, 1000), bool)

DEFECTS = {
    "gradients on all draws no weaker than on one": ("fgsm", {"correct": WRONG}),
    "gradients no weaker than queries and noise": ("square-oracle", {"correct": WRONG}),
    "the cascade is the strongest attack": ("worst-case", {"correct": RIGHT}),
    "monotone in eps": ("pgd-clipped-margin", {"eps": 0.35, "correct": RIGHT}),
    "at or below chance at the largest eps": ("pgd-clipped-margin", {"eps": 0.5, "correct": RIGHT}),
    "own-member attack no weaker than transfer": (
        "pgd",
        {"protocol": "transfer", "correct": np.stack([[RIGHT[0], WRONG[0]], [WRONG[0], RIGHT[0]]])},
    ),
    "doubling steps changes less than one standard error": (
        "worst-case",
        {"protocol": "doubled", "correct": WRONG},
    ),
    "few images unperturbed": ("autoattack", {"unperturbed": 0.2}),
    "few images without gradient": ("none", {"eps": 0.0, "zero_gradients": 0.2}),
    "same seed, same images": ("pgd-clipped-margin", {"repeatable": False}),
    "nothing odd before the attacks": ("none", {"eps": 0.0, "findings": ("No gradient.",)}),
}


def test_a_sound_row_passes_every_gate_and_each_has_its_defect():
    found = checked(sound())
    assert {name: gate.outcome for name, gate in found.items()} == dict.fromkeys(DEFECTS, "passed")
    assert gates.sound([*found.values()])


@pytest.mark.parametrize("name", DEFECTS)
def test_each_gate_fails_on_its_own_defect(name):
    attack, changes = DEFECTS[name]
    assert checked(changed(attack, **changes))[name].outcome == "failed"


def test_what_was_not_run_is_said_and_does_not_pass():
    found = checked([record(10)])
    assert found["monotone in eps"].outcome == "not run"
    assert not gates.sound([*found.values()])
    assert outcome([*found.values()]) == "not all run"


def test_one_network_needs_no_transfer():
    found = checked(gated("single", 20, images=1000, submodels=1))
    assert found["own-member attack no weaker than transfer"].outcome == "not applicable"
    assert gates.sound([*found.values()])


@pytest.mark.parametrize(
    ("excess", "outcome", "words"),
    [
        (Score(0.05, 0.01, 0.09), "failed", ""),
        (Score(0.0, -0.02, 0.02), "passed", ""),
        (Score(-0.2, -0.4, 0.0), "passed", ""),
        # Half of the interval is 0.04, twice what it may be: four times as many images.
        (Score(0.0, -0.04, 0.04), "undecided", " ± 4.0; about 400 images would tell"),
        (Score(0.03, -0.01, 0.07), "undecided", " ± 4.0"),
    ],
)
def test_three_outcomes_by_hand(excess, outcome, words):
    assert gates.judged(excess, 100) == (outcome, words)


def test_a_thousandth_of_images_cannot_be_told_on_fewer_than_a_thousand():
    name = "the cascade is the strongest attack"
    few = checked(gated("ulm", 20, images=200, submodels=2))[name]
    assert few.outcome == "undecided"
    assert "1,000 images would tell" in few.figure
    assert gates.sound([few])
    assert outcome([few]) == "undecided"


def test_a_plug_in_that_beats_the_cascade_counts_for_the_worst_case_and_fails_the_gate():
    records = [*sound(), record(0, attack="mine", **SIZE)]
    found = checked(records)["the cascade is the strongest attack"]
    # It leaves none of the 20 and 19 images.
    assert (found.outcome, found.figure) == ("failed", "against mine: 2.0% of images")
    assert rows(populations(records), "Linf", 0.3)[0].worst.value == 0


@pytest.mark.parametrize(("fewer", "outcome"), [(4, "passed"), (5, "failed")])
def test_doubling_may_change_less_than_one_standard_error(fewer, outcome):
    """20 right of 200 on both networks: the standard error is 4.25 images."""
    worst, twice = (
        record(20, attack="worst-case", protocol=protocol, images=200, submodels=2)
        for protocol in ("draw", "doubled")
    )
    answers = np.tile(np.arange(200) < 20, (2, 1))
    left = answers & (np.arange(200) >= fewer)
    found = checked([replace(worst, correct=answers), replace(twice, correct=left)])
    assert found["doubling steps changes less than one standard error"].outcome == outcome


def test_a_check_against_several_attacks_needs_them_all():
    found = checked([r for r in sound() if r.case.attack != "mifgsm"])
    gate = found["gradients on all draws no weaker than on one"]
    assert (gate.outcome, gate.figure) == ("not run", "not run against mifgsm")
    found = checked([r for r in sound() if not r.case.attack.startswith(("noise", "square"))])
    assert found["gradients no weaker than queries and noise"].outcome == "not run"
