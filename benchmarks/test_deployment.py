"""The same submodels under other protocols: what the draw itself is worth."""

import pytest

from benchmarks.budgets import CASCADE, DOUBLED_ATTACK, TRANSFER_ATTACK
from benchmarks.conftest import Measure
from benchmarks.session import Prepared, Session

ATTACK_OF = {
    "alone": CASCADE,
    "average": CASCADE,
    "transfer": TRANSFER_ATTACK,
    "doubled": DOUBLED_ATTACK,
}


@pytest.mark.parametrize("protocol", list(ATTACK_OF))
def test_deployment(
    session: Session, population: Prepared, protocol: str, measure: Measure
) -> None:
    """Measure one protocol at the radii that defenses are ranked at."""
    radii = session.radii(population.dataset.name)
    records = measure([(ATTACK_OF[protocol], eps) for eps in radii], protocol)
    assert [record.correct.shape for record in records] == [r.cell.shape for r in records]
