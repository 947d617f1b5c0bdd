"""The paper's tables: MRA of every defense under every attack."""

import pytest

from attacks import ATTACKS
from benchmarks.conftest import Measure
from benchmarks.session import Prepared, Session


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_mra(session: Session, population: Prepared, attack: str, measure: Measure) -> None:
    """Measure and record; a case fails when the attack breaks its contract."""
    radii = [0.0] if attack == "none" else session.radii(population.dataset.name)
    records = measure([(attack, eps) for eps in radii])
    assert [record.case.eps for record in records] == list(radii)
