import re

import numpy as np
import pytest
import samples
from samples import record

from leaderboard import baselines
from leaderboard.claims import (
    FAILS,
    HOLDS,
    NOT_MEASURED,
    ONLY_CLAIMED,
    UNDECIDED,
    decide,
    judge_claims,
)
from leaderboard.metrics import Score
from leaderboard.studies import studies

MANY = {"images": 1000, "submodels": 1, "budget": "paper"}
CLAIMS = ("fgsm", "mifgsm", "pgd", "autoattack")
PAPER = (*CLAIMS, "pgd-eot")


def judged(words, records=(), seen=()):
    """The only claim that has these words."""
    found = judge_claims(studies(records, seen), baselines.load())
    (claim,) = [claim for claim in found if words in claim.text]
    return claim


def verdict(words, records=(), seen=()):
    return judged(words, records, seen).verdict


def attacked(name, left, *, worst=0, clean=990, eps=0.3, **cell):
    """A defense of which so many of 1,000 images are left under each of the paper's attacks."""
    cell = {**MANY, "defense": name, **cell}
    left = left if isinstance(left, dict) else dict.fromkeys(PAPER, left)
    return [
        record(clean, attack="none", **cell),
        *(record(right, attack=attack, eps=eps, **cell) for attack, right in left.items()),
        record(worst, attack="worst-case", eps=eps, **cell),
    ]


def test_nothing_is_claimed_of_what_was_not_measured():
    claims = judge_claims({}, baselines.load())
    assert {claim.verdict for claim in claims} == {NOT_MEASURED}
    assert len({claim.text for claim in claims}) == len(claims) == 19


def test_a_threshold_is_met_by_the_whole_interval():
    assert decide(Score(0.2, 0.16, 0.24), 0.15) == HOLDS
    assert decide(Score(0.2, 0.14, 0.26), 0.15) == UNDECIDED
    assert decide(Score(0.1, 0.05, 0.14), 0.15) == FAILS


@pytest.mark.parametrize("budget", ["smoke", "quick"])
def test_less_than_the_paper_s_budget_has_figures_but_no_verdict(budget):
    records = [*attacked("ulm", 300, budget=budget), *attacked("clm", 550, budget=budget)]
    claim = judged("around 20 points", records)
    assert claim.verdict == f"not judged: {budget} budget"
    assert "+25.0" in claim.figures


@pytest.mark.parametrize(
    ("ulm", "clm", "worst", "expected"),
    [
        (300, 550, (0, 0), ONLY_CLAIMED),
        (300, 550, (100, 350), HOLDS),
        (300, 340, (0, 0), FAILS),
        (300, 460, (0, 0), FAILS),
        (300, 460, (0, 160), UNDECIDED),
        # One attack that counter-linking does not help against.
        (300, {**dict.fromkeys(CLAIMS, 550), "pgd": 320}, (0, 0), FAILS),
    ],
)
def test_a_gain_must_be_there_under_all_attacks_and_survive_the_worst(ulm, clm, worst, expected):
    records = [*attacked("ulm", ulm, worst=worst[0]), *attacked("clm", clm, worst=worst[1])]
    claim = judged("around 20 points", records)
    assert claim.verdict == expected
    assert "The paper's own table: +17.7 to +23.7" in claim.figures


def test_too_few_images_decide_nothing():
    few = {"images": 20}
    records = [*attacked("ulm", 6, clean=20, **few), *attacked("clm", 11, clean=20, worst=3, **few)]
    assert verdict("around 20 points", records) == UNDECIDED


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
    def art(worst):
        return verdict(
            "state of the art",
            [*attacked("single-adv", 980, worst=900), *attacked("clm-adv", 990, worst=worst)],
        )

    assert (art(990), art(880), art(964)) == (HOLDS, FAILS, UNDECIDED)


def test_alike_means_under_every_attack_and_in_the_worst_case():
    def alike(clm, worst=800, ulm_worst=800):
        records = [
            *attacked("ulm-adv", dict.fromkeys(PAPER, 900), worst=ulm_worst),
            *attacked("clm-adv", {**dict.fromkeys(PAPER, 900), **clm}, worst=worst),
        ]
        return verdict("perform alike under all attacks on MNIST", records)

    assert alike({"pgd": 898}) == HOLDS
    assert alike({"pgd": 850}) == FAILS
    assert alike({"pgd": 882}) == UNDECIDED
    assert alike({}, worst=700) == ONLY_CLAIMED
    part = dict.fromkeys(CLAIMS[:3], 900)
    records = [*attacked("ulm-adv", part), *attacked("clm-adv", part)]
    assert verdict("alike under all attacks on MNIST", records) == NOT_MEASURED


def test_the_larger_radius_must_show_the_published_order():
    ulm = {"fgsm": 700, "mifgsm": 650, "pgd": 400, "autoattack": 140, "pgd-eot": 540}
    clm = {"fgsm": 750, "mifgsm": 700, "pgd": 330, "autoattack": 110, "pgd-eot": 470}

    def order(first, second):
        pair = (("ulm-adv", first), ("clm-adv", second))
        records = [r for name, left in pair for r in attacked(name, left, eps=0.4)]
        return verdict("At eps 0.4", records)

    assert order(ulm, clm) == HOLDS
    assert order(clm, ulm) == FAILS
    assert order(ulm, {**clm, "pgd": 400}) == UNDECIDED


def test_at_16_255_clm_adv_must_be_ahead_everywhere():
    def ahead(left):
        cell = {"dataset": "cifar10", "eps": 16 / 255}
        ulm = attacked("ulm-adv", 300, **cell)
        clm = attacked("clm-adv", {**dict.fromkeys(PAPER, 350), **left}, **cell)
        return verdict("At eps 16/255", [*ulm, *clm])

    # A second radius: the claim is about the larger of the paper's two.
    assert ahead({}) == HOLDS
    assert ahead({"fgsm": 250}) == FAILS


def test_expectation_is_no_weaker_once_it_draws():
    def populations(eot):
        left = {**dict.fromkeys(CLAIMS, 300), "pgd-eot": eot}
        return [*attacked("ulm", left), *attacked("clm", left)]

    assert verdict("best against EOT", populations(400)) == HOLDS
    assert verdict("best against EOT", populations(100)) == FAILS


def test_the_own_network_is_fooled():
    def both(right):
        cells = [{**MANY, "submodels": 2, "defense": name} for name in ("ulm", "clm")]
        transferred = [record(right, protocol="transfer", **cell) for cell in cells]
        return [*transferred, *(record(right, attack="fgsm", **cell) for cell in cells)]

    assert verdict("nearly always succeeds", both(1)) == HOLDS
    assert verdict("nearly always succeeds", both(100)) == FAILS


RECORDS = [record(9, defense=name, budget="paper") for name in ("ulm", "clm")]


def seen(kind, **arrays):
    one = samples.evidence(kind, budget="paper")
    return [samples.evidence(kind, budget="paper", arrays={**one.arrays, **arrays})]


def test_weights_spread_wider_in_each_submodel():
    weights = samples.evidence("weights").arrays
    assert verdict("spread wider", RECORDS, seen("weights")) == HOLDS
    assert verdict("spread wider", RECORDS, seen("weights", ulm=9 * weights["clm"])) == FAILS


def test_a_linked_weight_must_keep_drifting_and_more_than_the_free_one():
    def drift(linked, free=(0.0, 0.0, 0.0)):
        arrays = {
            name: np.array([np.zeros(3), values], np.float32)
            for name, values in (("linked", linked), ("free", free))
        }
        return verdict("keep drifting", RECORDS, seen("trajectory", **arrays))

    assert drift((0.1, 0.2, 0.3)) == HOLDS
    assert drift((0.1, 0.3, 0.2)) == FAILS
    assert drift((0.1, 0.2, 0.3), free=(0.0, 0.0, 0.5)) == FAILS


def test_orthogonal_is_judged_image_by_image():
    words = "(MNIST, where the paper has none)"
    assert verdict(words, RECORDS, seen("saliency")) == HOLDS
    ulm = samples.evidence("saliency").arrays["ulm absolute"]
    assert verdict(words, RECORDS, seen("saliency", **{"clm absolute": ulm + 0.1})) == FAILS
    noisy = ulm + np.tile(np.array([0.1, -0.1], np.float32), 5)
    assert verdict(words, RECORDS, seen("saliency", **{"clm absolute": noisy})) == UNDECIDED


def test_conformity_needs_five_clms():
    words = "as accurate as each other on MNIST"
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


def test_size_is_compared_between_4_and_10():
    words = "do not change the robustness"
    assert verdict(words, RECORDS, seen("size")) == NOT_MEASURED

    def sizes(few, many):
        arrays = {"sizes": np.array([1, 4, 10], np.float32)}
        for name in ("ulm", "clm"):
            for column in ("claimed", "worst"):
                arrays[f"{name} {column} s"] = np.outer([0, few, many], np.ones(10)).astype("f4")
        return verdict(words, RECORDS, seen("size", **arrays))

    assert sizes(0.3, 0.31) == HOLDS
    assert sizes(0.3, 0.4) == FAILS


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
    claims = judge_claims(studies(RECORDS, seen("diversity")), baselines.load())
    assert not [claim for claim in claims if re.search(r"nan|inf\b", claim.figures)]
