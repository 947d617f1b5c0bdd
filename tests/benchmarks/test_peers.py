"""Others' attacks on the populations of a run."""

from dataclasses import replace

import pytest
from randomized_defense_bench.benchmarks.peers import measure_peers, peers
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.leaderboard import records


@pytest.mark.parametrize(
    ("defense", "norm", "attacks"),
    [
        ("ulm", "Linf", {"arc", "autoattack-rand", "pgd-eot"}),
        ("noise", "Linf", {"autoattack-rand", "pgd-eot"}),
        ("noise", "L2", {"autoattack-rand"}),
    ],
)
def test_those_that_fit_are_measured_apart_from_the_records_and_once(
    options, defense, norm, attacks
):
    session = Session(replace(options, norm=norm))
    prepared = session.prepare("digits", defense)
    measured = measure_peers(session, prepared)
    assert {record.case.attack for record, _ in measured} == attacks
    assert {record.case.images for record, _ in measured} == {50}
    assert all(0 < record.largest_distance <= record.case.eps + 1e-6 for record, _ in measured)
    assert len(records.read_all(options.results / "peers")) == len(attacks)
    assert records.read_all(options.results) == []
    assert all(was_there for _, was_there in measure_peers(session, prepared))


def test_each_says_with_which_numbers_it_ran(options):
    session = Session(replace(options, budget="quick"))
    prepared = Session(options).prepare("digits", "ulm")
    cases = {a.name: c for a, c in peers(session, prepared, session.radii("digits")[0])}
    assert cases["autoattack-rand"].attack_parameters == {"steps": 100, "draws": 20}
    eot = cases["pgd-eot"].attack_parameters
    assert (eot["steps"], eot["draws"]) == (20, 20)
