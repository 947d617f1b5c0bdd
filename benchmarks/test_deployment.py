"""The same members under other protocols: what the draw itself is worth."""

import pytest
from randomized_defense_bench.benchmarks.case import protocol_attacks
from randomized_defense_bench.benchmarks.populations import Prepared
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.defenses import DEFENSES
from randomized_defense_bench.leaderboard.records import PROTOCOLS, Protocol

from .conftest import Measure


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "draw"])
def test_deployment(
    session: Session, population: Prepared, protocol: Protocol, measure: Measure
) -> None:
    """Measure one protocol at the radii that defenses are ranked at."""
    attacks = protocol_attacks(protocol, session.options.norm)
    if protocol == "certified":
        attacks = [str(DEFENSES[population.defense].certificate)]
    radii = session.radii(population.dataset.name)
    records = measure([(attack, model) for attack in attacks for model in radii], protocol)
    assert [record.correct.shape for record in records] == [r.case.shape for r in records]
