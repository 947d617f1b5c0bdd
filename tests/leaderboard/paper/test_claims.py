import re
from dataclasses import replace

import numpy as np
import pytest
import samples
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.paper.claims import (
    FAILS,
    HOLDS,
    NO_MATTER,
    NOT_MEASURED,
    UNDECIDED,
    UNTRUSTED,
    decide,
    judge_claims,
)
from randomized_defense_bench.leaderboard.paper.study import studies
from samples import CLAIM, grid, record, told_apart

from randomized_defense_bench.metrics import Score

MANY = {"images": 1000, "submodels": 1, "budget": "paper"}
PAPER = (*CLAIM, "pgd-eot")


def judged(words, records=(), seen=(), grids=()):
    """The verdict on the only claim that has these words."""
    found = judge_claims(studies(Board(records), seen, grids))
    (verdict,) = [verdict for claim, verdict in found if words in claim.text]
    return verdict


def verdict(words, records=(), seen=(), grids=()):
    """Against the paper's attacks."""
    found = judged(words, records, seen, grids)
    return found.claimed if found else NOT_MEASURED


def both_verdicts(words, records):
    found = judged(words, records)
    return found.claimed, found.worst


def attacked(name, left, *, worst=0, clean=990, eps=0.3, **cell):
    """A defense of which so many of 1,000 images are left under each of the paper's attacks.

    It passes all gates.
    """
    left = left if isinstance(left, dict) else dict.fromkeys(PAPER, left)
    attacks = {**left, "worst-case": worst}
    return samples.gated(name, worst, attacks=attacks, clean=clean, eps=eps, **{**MANY, **cell})


def test_nothing_is_claimed_of_what_was_not_measured():
    found = judge_claims({})
    assert not [verdict for _, verdict in found if verdict]
    assert len({claim.text for claim, _ in found}) == len(found) == 19
    assert all(claim.means for claim, _ in found)


def test_a_threshold_is_met_by_the_whole_interval():
    assert decide(Score(0.2, 0.16, 0.24), 0.15) == HOLDS
    assert decide(Score(0.2, 0.14, 0.26), 0.15) == UNDECIDED
    assert decide(Score(0.1, 0.05, 0.14), 0.15) == FAILS


@pytest.mark.parametrize(
    ("budget", "claimed", "worst"),
    [
        ("smoke", "not judged: smoke budget", NO_MATTER),
        ("quick", "holds in kind", "does not hold in kind"),
    ],
)
def test_less_than_the_paper_s_budget_judges_in_kind_and_smoke_not_at_all(budget, claimed, worst):
    records = [*attacked("ulm", 300, budget=budget), *attacked("clm", 550, budget=budget)]
    found = judged("around 20 points", records)
    assert (found.claimed, found.worst) == (claimed, worst)
    assert "+25.0" in found.figures


@pytest.mark.parametrize(
    ("ulm", "clm", "worst", "expected"),
    [
        (300, 550, (0, 0), (HOLDS, FAILS)),
        (300, 550, (100, 350), (HOLDS, HOLDS)),
        (300, 340, (0, 0), (FAILS, FAILS)),
        (300, 460, (0, 160), (UNDECIDED, UNDECIDED)),
        # One attack that counter-linking does not help against.
        (300, {**dict.fromkeys(PAPER, 550), "pgd": 320}, (0, 0), (FAILS, FAILS)),
    ],
)
def test_a_gain_must_be_there_under_all_attacks_and_in_the_worst_case(ulm, clm, worst, expected):
    records = [*attacked("ulm", ulm, worst=worst[0]), *attacked("clm", clm, worst=worst[1])]
    assert both_verdicts("around 20 points", records) == expected
    assert "The paper's own table: +18.4 to +23.7" in judged("around 20 points", records).figures


def test_a_verdict_says_of_how_many_trainings_it_is():
    both = [
        one
        for name, left in (("ulm", 300), ("clm", 550))
        for seed in (0, 1)
        for one in attacked(name, left, seed=seed)
    ]
    assert judged("around 20 points", both).trainings == 2
    without_second_clm = [r for r in both if (r.case.defense, r.case.seed) != ("clm", 1)]
    assert judged("around 20 points", without_second_clm).trainings == 1


def test_there_is_no_worst_case_before_the_cascade_was_run_on_both():
    ulm, clm = attacked("ulm", 300), attacked("clm", 550)
    partial = [record for record in clm if record.case.attack != "worst-case"]
    assert both_verdicts("around 20 points", [*ulm, *partial]) == (HOLDS, NOT_MEASURED)
    only_fgsm = [one for one in attacked("clm-adv", 999) if one.case.attack in ("none", "fgsm")]
    assert judged("state of the art", only_fgsm) is None


def test_a_row_that_fails_a_gate_decides_nothing_in_the_worst_case():
    records = [*attacked("ulm", 300), *samples.masked(attacked("clm", 550, worst=350), "clm")]
    failed = UNTRUSTED.format("failed")
    assert both_verdicts("around 20 points", records) == (HOLDS, failed)
    assert judged("best against EOT", records).worst == failed
    art = [*attacked("clm-adv", 995, worst=990)]
    unchecked = [one for one in art if one.case.protocol != "doubled"]
    missing = UNTRUSTED.format("not all run")
    assert both_verdicts("state of the art", unchecked) == (HOLDS, missing)


def test_too_few_images_decide_nothing():
    few = {"images": 20}
    records = [*attacked("ulm", 6, clean=20, **few), *attacked("clm", 11, clean=20, **few)]
    assert verdict("around 20 points", records) == UNDECIDED
    two = {"images": 2}
    records = [*attacked("ulm", 0, clean=2, **two), *attacked("clm", 0, clean=2, **two)]
    assert both_verdicts("around 20 points", records) == (UNDECIDED, UNDECIDED)
    assert verdict("hardly any clean accuracy on MNIST", records) == UNDECIDED


def test_the_paper_s_own_table_is_held_against_its_claim():
    cell = {"dataset": "cifar10", "eps": 8 / 255}
    records = [*attacked("ulm", 300, **cell), *attacked("clm", 550, **cell)]
    figures = judged("at least 15 points", records).figures
    assert "The paper's own table: +3.2 to +27.5" in figures


def test_the_cost_in_clean_accuracy():
    def cost(clean):
        return verdict(
            "hardly any clean accuracy on MNIST",
            [*attacked("ulm", 1, clean=990), *attacked("clm", 1, clean=clean)],
        )

    assert (cost(985), cost(930), cost(972)) == (HOLDS, FAILS, UNDECIDED)


def test_state_of_the_art_is_what_others_published():
    def art(claimed, worst):
        return both_verdicts("state of the art", attacked("clm-adv", claimed, worst=worst))

    assert art(995, 990) == (HOLDS, HOLDS)
    assert art(995, 880) == (HOLDS, FAILS)
    assert art(964, 880) == (UNDECIDED, FAILS)


def test_alike_means_under_every_attack_of_the_paper():
    def alike(clm, worst=800):
        records = [
            *attacked("ulm-adv", dict.fromkeys(PAPER, 900), worst=800),
            *attacked("clm-adv", {**dict.fromkeys(PAPER, 900), **clm}, worst=worst),
        ]
        return both_verdicts("perform alike on MNIST", records)

    assert alike({"pgd": 898}) == (HOLDS, HOLDS)
    assert alike({"pgd": 850}) == (FAILS, HOLDS)
    assert alike({"pgd": 882}) == (UNDECIDED, HOLDS)
    # Ours draws networks: another attack than the paper's.
    assert alike({"pgd-eot": 850})[0] == HOLDS
    assert alike({}, worst=700) == (HOLDS, FAILS)
    part = dict.fromkeys(CLAIM[:3], 900)
    records = [*attacked("ulm-adv", part), *attacked("clm-adv", part)]
    assert verdict("perform alike on MNIST", records) == NOT_MEASURED


def test_the_larger_radius_must_show_the_published_order():
    ulm = {"fgsm": 700, "mifgsm": 650, "pgd": 400, "autoattack": 140, "pgd-eot": 540}
    clm = {"fgsm": 750, "mifgsm": 700, "pgd": 330, "autoattack": 110, "pgd-eot": 470}

    def order(first, second, grids=()):
        pair = (("ulm-adv", first), ("clm-adv", second))
        records = [r for name, left in pair for r in attacked(name, left, eps=0.4)]
        return verdict("At eps 0.4", records, grids=grids)

    assert order(ulm, clm) == HOLDS
    assert order(clm, ulm) == FAILS
    assert order(ulm, {**clm, "pgd": 400}) == UNDECIDED

    def by_network(spread, eps=0.4):
        around = np.outer([-spread, 0, spread], np.ones(3))
        trainings = (
            told_apart(name, {attack: left[attack] / 1000 + around for attack in CLAIM})
            for name, left in (("ulm-adv", ulm), ("clm-adv", clm))
        )
        return grid("networks", *trainings, eps=eps)

    # Three networks on either side, 3 to 7 points apart: +- 2.776 * spread * sqrt(2 / 3).
    assert order(ulm, clm, [by_network(0.01)]) == HOLDS
    assert order(ulm, clm, [by_network(0.1)]) == UNDECIDED
    # Networks that are apart do not make up for images that are not.
    assert order(ulm, {**clm, "pgd": 400}, [by_network(0.01)]) == UNDECIDED
    # Of another radius, that says nothing.
    assert order(ulm, clm, [by_network(0.1, eps=0.5)]) == HOLDS


def test_at_16_255_clm_adv_must_be_ahead_everywhere():
    def ahead(left):
        cell = {"dataset": "cifar10", "eps": 16 / 255}
        ulm = attacked("ulm-adv", 300, **cell)
        clm = attacked("clm-adv", {**dict.fromkeys(PAPER, 350), **left}, **cell)
        return verdict("At eps 16/255", [*ulm, *clm])

    # A second radius: the claim is about the larger of the paper's two.
    assert ahead({}) == HOLDS
    assert ahead({"fgsm": 250}) == FAILS


def test_expectation_is_judged_once_it_draws():
    def clm(eot):
        left = {**dict.fromkeys(CLAIM, 300), "pgd-eot": eot}
        return both_verdicts("best against EOT", attacked("clm", left))

    assert clm(400) == (NO_MATTER, HOLDS)
    assert clm(100) == (NO_MATTER, FAILS)


def test_the_own_network_is_fooled():
    def both(right, seed=0):
        cells = [{**MANY, "submodels": 2, "defense": name, "seed": seed} for name in ("ulm", "clm")]
        transferred = [record(right, protocol="transfer", **cell) for cell in cells]
        return [*transferred, *(record(right, attack="fgsm", **cell) for cell in cells)]

    assert verdict("nearly always succeeds", both(1)) == HOLDS
    assert verdict("nearly always succeeds", both(100)) == FAILS
    assert judged("nearly always succeeds", [*both(1), *both(1, seed=1)]).trainings == 2


RECORDS = [record(9, defense=name, budget="paper") for name in ("ulm", "clm")]


def seen(kind, **arrays):
    one = samples.evidence(kind, budget="paper")
    return [samples.evidence(kind, budget="paper", arrays={**one.arrays, **arrays})]


def test_weights_spread_wider_in_each_submodel():
    weights = samples.evidence("weights").arrays
    assert verdict("spread wider", RECORDS, seen("weights")) == HOLDS
    assert verdict("spread wider", RECORDS, seen("weights", ulm=9 * weights["clm"])) == FAILS


def test_a_linked_weight_must_drift_in_every_third_and_more_than_the_free_one():
    def drift(linked, free=(0.0, 0.0, 0.0, 0.0)):
        arrays = {
            name: np.array([np.zeros(4), values], np.float32)
            for name, values in (("linked", linked), ("free", free))
        }
        arrays["step"] = np.arange(4, dtype=np.float32)
        return verdict("keep diverging", RECORDS, seen("trajectory", **arrays))

    assert drift((0.1, 0.2, 0.3, 0.4)) == HOLDS
    assert drift((0.1, 0.39, 0.395, 0.4)) == FAILS
    assert drift((0.1, 0.2, 0.3, 0.4), free=(0.0, 0.0, 0.0, 0.7)) == FAILS
    short = judged("keep diverging", RECORDS, seen("trajectory"))
    assert short is None


def test_orthogonal_is_judged_image_by_image():
    words = "in CLM than in ULM (the paper: CIFAR-10; here MNIST)"
    assert verdict(words, RECORDS, seen("saliency")) == HOLDS
    ulm = samples.evidence("saliency").arrays["ulm absolute"]
    assert verdict(words, RECORDS, seen("saliency", **{"clm absolute": ulm + 0.1})) == FAILS
    noisy = ulm + np.tile(np.array([0.1, -0.1], np.float32), 5)
    assert verdict(words, RECORDS, seen("saliency", **{"clm absolute": noisy})) == UNDECIDED


def test_conformity_needs_five_clms():
    words = "keep the range of accuracy on MNIST"
    assert verdict(words, RECORDS, seen("conformity")) == NOT_MEASURED

    def five(clean):
        arrays = {
            "seeds": np.arange(5, dtype=np.float32),
            "clean": np.array(clean, np.float32)[:, None].repeat(2, 1),
            "claimed": np.full((5, 2), 0.5, np.float32),
        }
        return verdict(words, RECORDS, seen("conformity", **arrays))

    assert five([0.98, 0.981, 0.982, 0.983, 0.984]) == HOLDS
    assert five([0.98, 0.981, 0.982, 0.983, 0.995]) == FAILS


def test_more_submodels_gain_at_most_the_share_of_the_own_one():
    """own / n + (1 - 1 / n) others tends to others: from 10, by a tenth of the gap."""

    def grown(others):
        made = []
        for name in ("ulm", "clm"):
            cell = {"defense": name, "submodels": 10, "budget": "paper", "images": 1000}
            correct = np.zeros((10, 10, 1000), bool)
            correct[~np.eye(10, dtype=bool), :others] = True
            made.append(replace(record(1, protocol="transfer", **cell), correct=correct))
            made.append(record(1, attack="fgsm", **cell))
        return judged("would not be more robust", made)

    assert grown(500).claimed == FAILS
    assert "ULM has 45.0 at n = 10 and could gain at most +5.0 (" in grown(500).figures
    assert "(1,000 images, seed 0)" in grown(500).figures
    assert grown(50).claimed == HOLDS
    assert grown(500).worst == NO_MATTER


def pairs_of_ten(transfer):
    """Submodels on a line: all measures are their distance, and `transfer` follows from it."""
    first, second = np.triu_indices(10, 1)
    distance = (second - first).astype(np.float32)
    arrays = {}
    for name in ("ulm", "clm"):
        arrays[f"{name} measures"] = np.tile(distance, (4, 1))
        arrays[f"{name} transfer"] = transfer(distance).astype(np.float32)
        for outcome in ("claimed", "worst"):
            arrays[f"{name} {outcome}"] = distance
    return seen("diversity", **arrays)


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        (lambda distance: distance, HOLDS),
        (lambda distance: -distance, FAILS),
        (lambda distance: np.random.default_rng(0).random(45), UNDECIDED),
        (np.ones_like, NOT_MEASURED),
    ],
)
def test_orthogonality_protects_where_it_correlates_with_transfer(transfer, expected):
    assert verdict("more orthogonal the saliency", RECORDS, pairs_of_ten(transfer)) == expected


def test_no_verdict_prints_what_is_no_number():
    kinds = ("diversity", "weights", "saliency", "trajectory", "conformity", "size")
    everything = [one for kind in kinds for one in seen(kind)]
    one = samples.evidence("weights", budget="paper")
    alone = {name: array[:1] for name, array in one.arrays.items()}
    for evidence in (everything, [*everything, *seen("weights", **alone)]):
        found = judge_claims(studies(Board(RECORDS), evidence))
        shown = [verdict.figures for _, verdict in found if verdict]
        assert shown
        assert not [figures for figures in shown if re.search(r"nan|inf\b", figures)]
