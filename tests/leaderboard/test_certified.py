"""Certificates on the page: below the worst case, which is below what is claimed."""

from dataclasses import replace

import numpy as np
import pytest
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.gates import check
from randomized_defense_bench.leaderboard.publish import RESULTS
from randomized_defense_bench.leaderboard.records import LEVELS
from randomized_defense_bench.leaderboard.rows import answers
from samples import gated, record, row
from test_pages import page, shown, table

from randomized_defense_bench import metrics


def measured(certified, **cell):
    """A row of 5 images in the worst case and 9 claimed, of 20, and its certificate."""
    proven = record(
        certified, defense="ibp", attack="interval-bounds", protocol="certified", **cell
    )
    return [*gated("ibp", 5, **cell), proven]


def test_the_page_has_a_column_only_where_something_is_certified():
    (line,) = table(page(measured(3)), "rank")
    # Of two members one is certified on one image less.
    assert line["certified"] == "12.5"
    assert "certified" not in table(page(gated("ibp", 5)), "rank")[0]
    text = shown(measured(3), "ibp")
    assert "Certified ≤ worst case ≤ claimed: 12.5 ≤ 22.5 ≤ 32.5." in text


def test_of_random_members_the_levels_are_one_bound_and_the_vote_stands_apart():
    one = record(20, draws=4, submodels=1, attack="clopper-pearson", protocol="certified")
    levels = np.arange(LEVELS)[:, None] < np.array([70] * 5 + [30] * 15)
    text = shown([*row("ulm", 9, draws=4, submodels=1), replace(one, correct=levels)])
    assert "Certified ≤ worst case ≤ claimed: 40.0 ≤ " in text
    assert "it is certified on 25.0% of the images." in text
    assert one.answers.draws == 1


@pytest.mark.parametrize(("certified", "outcome"), [(5, "passed"), (19, "failed")])
def test_an_attack_that_breaks_a_certificate_fails_a_gate(certified, outcome):
    size = {"images": 1000}
    (entry,) = Board(measured(certified, **size)).entries
    (gate,) = (g for g in check(entry.row) if g.name == "no attack breaks a certificate")
    assert gate.outcome == outcome


def test_the_chain_holds_in_all_committed_records():
    entries = Board(records.read_all(RESULTS)).entries
    assert entries
    for one in (entry.row for entry in entries):
        certified = answers(one.by_protocol.get("certified", {}))
        worst, claimed = one.worst_by_seed, one.claimed_by_seed
        for lower, upper in ((certified, worst), (worst, claimed)):
            above = metrics.shared_difference(lower, upper)
            # Of random members both sides are estimates.
            excess = 0.0 if above is None else above.low if one.draws > 1 else above.value
            assert excess <= metrics.ROUNDING, one.label
