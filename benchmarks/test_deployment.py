"""The same submodels under other protocols: what the draw itself is worth."""

import pytest

from benchmarks.conftest import Measure
from benchmarks.experiment import PROTOCOL_ATTACKS
from benchmarks.session import Prepared, Session


@pytest.mark.parametrize("protocol", list(PROTOCOL_ATTACKS))
def test_deployment(
    session: Session, population: Prepared, protocol: str, measure: Measure
) -> None:
    """Measure one protocol at the radii that defenses are ranked at."""
    radii = session.radii(population.dataset.name)
    records = measure([(PROTOCOL_ATTACKS[protocol], eps) for eps in radii], protocol)
    assert [record.correct.shape for record in records] == [r.case.shape for r in records]
