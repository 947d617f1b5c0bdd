"""The same members under other protocols: what the draw itself is worth."""

import pytest

from benchmarks.case import protocol_attacks, protocols
from benchmarks.conftest import Measure
from benchmarks.populations import Prepared
from benchmarks.session import Session
from leaderboard.records import Protocol


@pytest.mark.parametrize("protocol", protocols(several=True, random=False))
def test_deployment(
    session: Session, population: Prepared, protocol: Protocol, measure: Measure
) -> None:
    """Measure one protocol at the radii that defenses are ranked at."""
    attacks = protocol_attacks(protocol, session.options.norm)
    radii = session.radii(population.dataset.name)
    records = measure([(attack, model) for attack in attacks for model in radii], protocol)
    assert [record.correct.shape for record in records] == [r.case.shape for r in records]
