"""Every gate can pass and can fail."""

from dataclasses import replace

import numpy as np
import pytest
from samples import gated, record

from leaderboard import gates
from leaderboard.rows import rows


def outcome(records, name):
    (row,) = rows(records, "Linf", 0.3)
    return {gate.name: gate.passed for gate in gates.check(row)}[name]


def sound():
    return gated("ulm", 20, images=200, submodels=2)


def with_changes(changes, matches):
    """The sound row with the records that match replaced."""
    return [replace(r, **changes(r)) if matches(r) else r for r in sound()]


def all_right(record):
    return {"correct": np.ones_like(record.correct)}


def attack(name, protocol="draw", eps=0.3):
    return lambda r: (r.case.attack, r.case.protocol, r.case.eps) == (name, protocol, eps)


def test_a_sound_row_passes_every_gate():
    (row,) = rows(sound(), "Linf", 0.3)
    checked = gates.check(row)
    assert {gate.name: gate.passed for gate in checked} == {g.name: True for g in checked}
    assert gates.passed(checked)


def diagonal_right(record):
    return {"correct": np.stack([[[True] * 200, [False] * 200], [[False] * 200, [True] * 200]])}


FAILURES = {
    "iterated on all networks no weaker than FGSM on one": (
        all_right,
        attack("pgd-clipped-margin"),
    ),
    "APGD on all networks no weaker than the paper's attacks on one": (
        all_right,
        attack("apgd-population"),
    ),
    "cascade no weaker than its parts": (all_right, attack("worst-case")),
    "gradients no weaker than queries and noise": (
        all_right,
        attack("apgd-population"),
    ),
    "monotone in eps": (all_right, attack("pgd-clipped-margin", eps=0.35)),
    "at or below chance at the largest eps": (all_right, attack("pgd-clipped-margin", eps=0.5)),
    "own-member attack no weaker than transfer": (diagonal_right, attack("pgd", "transfer")),
    "doubling steps changes less than one standard error": (
        lambda r: {"correct": np.zeros_like(r.correct)},
        attack("worst-case", "doubled"),
    ),
    "inside the ball and [0, 1]": (lambda r: {"largest_distance": 0.31}, attack("pgd")),
    "few images unperturbed": (lambda r: {"unperturbed": 0.2}, attack("autoattack")),
    "few images without gradient": (
        lambda r: {"zero_gradients": 0.2},
        attack("none", eps=0.0),
    ),
    "same seed, same images": (lambda r: {"repeatable": False}, attack("pgd-clipped-margin")),
}


@pytest.mark.parametrize("name", list(FAILURES))
def test_each_gate_fails_on_its_own_defect(name):
    changes, matches = FAILURES[name]
    records = with_changes(changes, matches)
    assert outcome(records, name) is False


def test_there_is_a_failure_for_every_gate():
    (row,) = rows(sound(), "Linf", 0.3)
    assert {gate.name for gate in gates.check(row)} == FAILURES.keys()


def test_what_was_not_run_is_said_and_does_not_pass():
    (row,) = rows([record(10)], "Linf", 0.3)
    checked = gates.check(row)
    missing = {gate.name for gate in checked if gate.passed is None}
    assert "monotone in eps" in missing
    assert "doubling steps changes less than one standard error" in missing
    assert not gates.passed(checked)


@pytest.mark.parametrize(("fewer", "passed"), [(4, True), (5, False)])
def test_doubling_may_change_less_than_one_standard_error(fewer, passed):
    """20 right of 200 on one network: the standard error is 4.25 images."""
    (worst,) = (r for r in sound() if attack("worst-case")(r))
    answers = np.zeros((2, 200), bool)
    answers[:, :20] = True
    twice = answers.copy()
    twice[:, :fewer] = False
    records = [
        replace(worst, correct=answers),
        record(20 - fewer, attack="worst-case", protocol="doubled", images=200, submodels=2),
    ]
    records[1] = replace(records[1], correct=twice)
    assert outcome(records, "doubling steps changes less than one standard error") is passed


def test_a_check_against_several_attacks_needs_them_all():
    def found(missing):
        (row,) = rows([r for r in sound() if r.case.attack != missing], "Linf", 0.3)
        return {gate.name: (gate.passed, gate.figure) for gate in gates.check(row)}

    weaker = "gradients no weaker than queries and noise"
    assert found("square-oracle")[weaker] == (None, "not run against square-oracle")
    assert found("apgd-population")[weaker] == (None, "not run")
    parts = "cascade no weaker than its parts"
    assert found("arc")[parts] == (None, "not run against arc")


def test_a_plug_in_stronger_than_the_cascade_does_not_cost_the_rank():
    stronger = record(0, attack="mine", images=200, submodels=2)
    (row,) = rows([*sound(), stronger], "Linf", 0.3)
    assert gates.passed(gates.check(row))
    assert row.worst.value == 0


def test_a_seed_of_which_only_the_clean_images_were_measured_breaks_nothing():
    partial = [
        record(19, attack="none", seed=0),
        record(5, attack="worst-case", seed=0),
        record(5, attack="worst-case", protocol="doubled", seed=0),
        record(19, attack="none", seed=1),
    ]
    (row,) = rows(partial, "Linf", 0.3)
    assert row.seeds == [0]
    assert not gates.passed(gates.check(row))
