import numpy as np
import pytest
import samples
from samples import record

from leaderboard import baselines
from leaderboard.claims import FAILS, HOLDS, NOT_MEASURED, ONLY_CLAIMED, judge_claims
from leaderboard.studies import studies

MANY = {"images": 1000, "submodels": 1}


def verdict(words, records=(), seen=()):
    """The verdict on the only claim that has these words."""
    found = judge_claims(studies(records, seen), baselines.load())
    (claim,) = [claim for claim in found if words in claim.text]
    return claim.verdict


def pair(first, second, *, pgd, worst, clean=(990, 990), eps=0.3):
    """Two defenses of one submodel with so many of 1,000 images left."""
    made = []
    for name, at in ((first, 0), (second, 1)):
        cell = {**MANY, "defense": name}
        made += [record(clean[at], attack="none", **cell)]
        made += [record(pgd[at], attack="pgd", eps=eps, **cell)]
        made += [record(worst[at], attack="worst-case", eps=eps, **cell)]
    return made


def test_nothing_is_claimed_of_what_was_not_measured():
    claims = judge_claims({}, baselines.load())
    assert len(claims) == 15
    assert {claim.verdict for claim in claims} == {NOT_MEASURED}


@pytest.mark.parametrize(
    ("pgd", "worst", "expected"),
    [
        ((300, 500), (0, 0), ONLY_CLAIMED),
        ((300, 500), (100, 300), HOLDS),
        ((300, 340), (0, 0), FAILS),
    ],
)
def test_a_gain_must_survive_the_worst_case(pgd, worst, expected):
    records = pair("ulm", "clm", pgd=pgd, worst=worst)
    assert verdict("around 20 points", records) == expected


def test_the_cost_in_clean_accuracy():
    cheap = pair("ulm", "clm", pgd=(1, 1), worst=(0, 0), clean=(990, 980))
    dear = pair("ulm", "clm", pgd=(1, 1), worst=(0, 0), clean=(990, 950))
    assert verdict("hardly any clean", cheap) == HOLDS
    assert verdict("hardly any clean", dear) == FAILS


def test_state_of_the_art_is_what_others_published():
    best = 964
    good = pair("single-adv", "clm-adv", pgd=(980, 990), worst=(900, best))
    bad = pair("single-adv", "clm-adv", pgd=(980, 990), worst=(900, 880))
    assert verdict("state of the art", good) == HOLDS
    assert verdict("state of the art", bad) == FAILS


PAPER = ("fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot")


def table(ulm, clm, eps, attacks=PAPER):
    """The -Adv pair under the paper's attacks."""
    made = []
    for name, rights in (("ulm-adv", ulm), ("clm-adv", clm)):
        for attack in (*attacks, "worst-case"):
            right = rights.get(attack, 0)
            made.append(record(right, attack=attack, eps=eps, defense=name, **MANY))
    return made


def test_alike_means_under_every_attack():
    same = dict.fromkeys(PAPER, 900)
    assert verdict("perform alike", table(same, {**same, "pgd": 890}, 0.3)) == HOLDS
    assert verdict("perform alike", table(same, {**same, "pgd": 850}, 0.3)) == FAILS
    assert verdict("perform alike", table(same, same, 0.3, attacks=PAPER[:3])) == NOT_MEASURED


def test_the_larger_radius_must_show_the_published_order():
    ulm = {"fgsm": 700, "mifgsm": 650, "pgd": 400, "autoattack": 140, "pgd-eot": 540}
    clm = {"fgsm": 750, "mifgsm": 700, "pgd": 330, "autoattack": 110, "pgd-eot": 470}
    assert verdict("At eps 0.4", table(ulm, clm, 0.4)) == HOLDS
    assert verdict("At eps 0.4", table(clm, ulm, 0.4)) == FAILS


def test_expectation_is_no_weaker_once_it_draws():
    def both(right):
        return [
            record(right if attack == "pgd-eot" else 300, attack=attack, defense=name, **MANY)
            for name in ("ulm", "clm")
            for attack in PAPER
        ]

    assert verdict("best against EOT", both(400)) == HOLDS
    assert verdict("best against EOT", both(100)) == FAILS


def test_the_own_network_is_fooled():
    def both(right):
        cells = [{"defense": "ulm"}, {"defense": "clm"}]
        transferred = [record(right, protocol="transfer", **cell) for cell in cells]
        return [*transferred, *(record(right, attack="fgsm", **cell) for cell in cells)]

    assert verdict("nearly always succeeds", both(0)) == HOLDS
    assert verdict("nearly always succeeds", both(9)) == FAILS


def test_figures_are_judged_by_their_arrays():
    def seen(kind, **arrays):
        one = samples.evidence(kind)
        return [samples.evidence(kind, arrays={**one.arrays, **arrays})]

    some = [record(9)]
    weights = samples.evidence("weights").arrays
    assert verdict("spread wider", some, seen("weights")) == HOLDS
    assert verdict("spread wider", some, seen("weights", ulm=9 * weights["clm"])) == FAILS
    assert verdict("keep drifting", some, seen("trajectory")) == HOLDS
    still = np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]], np.float32)
    assert verdict("keep drifting", some, seen("trajectory", linked=still)) == FAILS
    assert verdict("The same on MNIST", some, seen("saliency")) == HOLDS
    high = {"clm mean": np.array([0.9], np.float32)}
    assert verdict("The same on MNIST", some, seen("saliency", **high)) == FAILS
    assert verdict("same range", some, seen("conformity")) == HOLDS
    wide = {"clean": np.array([[0.9, 0.99], [0.98, 0.97]], np.float32)}
    assert verdict("same range", some, seen("conformity", **wide)) == FAILS
    assert verdict("do not change the robustness", some, seen("size")) == HOLDS
    steps = {
        "sizes": np.array([4, 10], np.float32),
        "ulm claimed s": np.outer([0.2, 0.3], np.ones(10)).astype(np.float32),
    }
    assert verdict("do not change the robustness", some, seen("size", **steps)) == FAILS


@pytest.mark.parametrize(
    ("claimed", "worst", "expected"),
    [
        ((1, 2, 3), (1, 2, 3), HOLDS),
        ((1, 2, 3), (3, 2, 1), ONLY_CLAIMED),
        ((3, 2, 1), (1, 2, 3), FAILS),
    ],
)
def test_orthogonality_protects_where_it_correlates(claimed, worst, expected):
    measures = np.tile(np.array([0.1, 0.2, 0.3], np.float32), (4, 1))
    arrays = {}
    for name in ("ulm", "clm"):
        arrays[f"{name} measures"] = measures
        arrays[f"{name} claimed"] = np.array(claimed, np.float32)
        arrays[f"{name} worst"] = np.array(worst, np.float32)
    seen = [samples.evidence("diversity", arrays=arrays)]
    assert verdict("more orthogonal the saliency", [record(9)], seen) == expected
