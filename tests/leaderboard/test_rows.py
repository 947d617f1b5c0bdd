from dataclasses import replace

import numpy as np
import pytest
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.rows import populations, rows, settings, split_transfer
from samples import record, row


def test_rows_are_ordered_by_their_minimum_and_incomplete_ones_come_last():
    measured = [*row("low", 2), *row("high", 9), *row("partial", 15, attacks=("fgsm", "pgd"))]
    ordered = rows(populations(measured), "Linf", 0.3)
    assert [r.defense for r in ordered] == ["high", "low", "partial"]
    assert [r.complete for r in ordered] == [True, True, False]


def test_the_claim_is_the_lowest_under_the_paper_s_attacker_who_draws_one_submodel():
    """And the worst case is over attacks, never over clean images or noise."""
    noise = record(1, attack="noise", submodels=1)
    (only,) = rows(populations([*row("ulm", 5, submodels=1), noise]), "Linf", 0.3)
    assert only.score("none").value == 19 / 20
    assert only.worst.value == 5 / 20
    assert only.claimed == only.score("autoattack")
    assert only.claimed.value == 7 / 20


def test_an_attack_on_fewer_images_is_compared_on_these():
    """Right on image j < `right`: 12 of 20 under pgd, and 6 of the first 10 under the cascade."""
    few = record(6, attack="worst-case", submodels=1, images=10, test_images=20)
    (only,) = rows(populations([record(12, attack="pgd", submodels=1), few]), "Linf", 0.3)
    assert only.worst_images == 10
    assert only.worst.value == 6 / 10
    assert only.claimed.value == 12 / 20
    # All of the first ten images withstood pgd.
    ((setting, measured),) = settings(only.records).items()
    assert setting.images == 20
    assert len(measured) == 2


def test_attacks_are_told_by_kind_and_random_members_are_chosen_for_by_other_draws():
    """Selecting says the first attack is stronger on all images; scoring says the second is."""
    cell = {"submodels": 1, "draws": 4}
    first, second = record(20, attack="pgd", **cell), record(5, attack="arc", **cell)
    first = replace(first, selecting=np.zeros(20))
    second = replace(second, selecting=np.ones(20))
    (only,) = rows(populations([first, second, record(1, attack="noise", **cell)]), "Linf", 0.3)
    assert only.attacks() == ["arc", "pgd"]
    assert only.attacks("authors") == ["pgd"]
    assert only.worst.value == first.score.value
    assert only.draws == 4


def test_the_gain_is_over_the_best_member_deployed_alone():
    alone = record(8, defense="ulm", attack="worst-case", protocol="alone")
    (only,) = rows(populations([*row("ulm", 5), alone]), "Linf", 0.3)
    # The first of the two networks is chosen on either half.
    assert only.best_member.value == 8 / 20
    assert only.gain.value == pytest.approx((5 + 4) / 40 - 8 / 20)


def test_another_eps_or_norm_is_another_table_but_clean_images_belong_to_both():
    measured = [*row("ulm", 5), *row("ulm", 3, eps=0.4)[1:]]
    for eps, minimum in ((0.3, 5), (0.4, 3)):
        (only,) = rows(populations(measured), "Linf", eps)
        assert only.score("none").value == 37 / 40
        assert only.worst.value == (2 * minimum - 1) / 40
    assert rows(populations(measured), "L2", 0.3) == []


def test_budgets_images_and_sources_never_share_a_setting():
    measured = [
        record(),
        record(budget="smoke"),
        record(images=19),
        record(source="image folder (jpeg)"),
        record(sha256="f" * 64),
    ]
    assert len(settings(measured)) == len(measured)


def test_seeds_of_one_defense_are_one_row_and_sizes_are_two():
    measured = [*row("ulm", 5), *row("ulm", 7, seed=1), *row("ulm", 6, submodels=4)]
    by_size = {r.submodels: r for r in rows(populations(measured), "Linf", 0.3)}
    assert by_size[2].seeds == [0, 1]
    # Of one seed.
    assert by_size[2].training_seconds == 12.0
    assert by_size[2].attack_seconds == 7 * 1.5
    assert by_size[2].worst.value == (9 + 13) / 80
    assert by_size[4].seeds == [0]


def test_namesakes_are_told_apart_by_what_differs():
    measured = [
        *row("clm", 5, defense_parameters={"from_scratch": False, "recipe": {"epochs": 3}}),
        *row("clm", 7, defense_parameters={"from_scratch": True, "recipe": {"epochs": 3}}),
    ]
    labels = [r.label for r in rows(populations(measured), "Linf", 0.3)]
    assert labels == ["clm (from_scratch True)", "clm (from_scratch False)"]


def test_local_rows_stand_beside_the_committed_ones_and_have_their_own_control():
    parts = {"single": {"submodels": 1}, "ulm": {}}
    committed = [one for name, cell in parts.items() for one in row(name, 5, **cell)]
    board = Board([*committed, *(replace(one, local=True) for one in committed)])
    controls = {e.row.label: e.control and e.control.row.label for e in board.entries}
    assert controls == {
        "single": "single",
        "single (local)": "single (local)",
        "ulm": "single",
        "ulm (local)": "single (local)",
    }


def test_records_of_superseded_weights_do_not_count():
    old = row("ulm", 5)
    new = replace(record(3, measured_at="2026-01-03T00:00:00+00:00"), population_sha256="f" * 64)
    (only,) = rows(populations([*old, new]), "Linf", 0.3)
    assert only.by_attack.keys() == {"pgd"}
    assert not only.complete


def test_the_newer_of_two_versions_of_an_attack_counts():
    old = record(12, attack_version=1, measured_at="2026-01-01T00:00:00+00:00")
    new = record(3, attack_version=2, measured_at="2026-01-02T00:00:00+00:00")
    for order in ([old, new], [new, old]):
        (only,) = rows(populations(order), "Linf", 0.3)
        assert only.score("pgd").value == 5 / 40


def test_while_no_seed_is_complete_those_with_the_most_attacks_count():
    """A seed that only PGD was run on has no worst case."""
    first = [record(5, attack="pgd"), record(2, attack="pgd-clipped-margin")]
    second = [record(19, attack="pgd", seed=1)]
    clean = [record(20, attack="none", seed=seed) for seed in (0, 1)]
    (one,) = rows(populations([*first, *second, *clean]), "Linf", 0.3)
    assert one.seeds == [0]
    assert one.worst.value == 3 / 40


def test_a_protocol_does_not_count_under_another_version_of_the_attack():
    def left(protocol, version):
        return record(
            8, defense="ulm", attack="worst-case", attack_version=version, protocol=protocol
        )

    for version, counted in ((1, set()), (2, {"alone", "doubled"})):
        protocols = [left(protocol, version) for protocol in ("alone", "doubled")]
        newer = replace(left("draw", 2), measured_at="2026-01-03T00:00:00+00:00")
        (only,) = rows(populations([*row("ulm", 5), newer, *protocols]), "Linf", 0.3)
        assert {name for name, by_seed in only.by_protocol.items() if by_seed} == counted


def test_a_transfer_between_random_members_tells_own_draws_from_others():
    """Member 0 falls for its own attacks only, member 1 for none; three draws of each."""
    transfer = record(draws=3, protocol="transfer")
    right = np.ones((2, 2, 3, 20), bool)
    right[0, 0] = False
    on_itself, on_others = split_transfer({0: replace(transfer, correct=right.reshape(2, 6, 20))})
    assert (on_itself[0].s.mean(), on_others[0].s.mean()) == (0.5, 1.0)
    assert on_itself[0].draws == 3
