"""The same members under other protocols: what the draw itself is worth."""

import pytest

from attacks import ATTACKS
from benchmarks.case import protocols
from benchmarks.conftest import Measure
from benchmarks.populations import Prepared
from benchmarks.session import Session


@pytest.mark.parametrize("protocol", protocols(several=True, random=False))
def test_deployment(
    session: Session, population: Prepared, protocol: str, measure: Measure
) -> None:
    """Measure one protocol at the radii that defenses are ranked at."""
    norm = session.options.norm
    attacks = [a for a in ATTACKS if protocol in ATTACKS[a].protocols and norm in ATTACKS[a].norms]
    if not attacks:
        pytest.skip(f"no attack in {norm} is measured under the protocol {protocol!r}")
    radii = session.radii(population.dataset.name)
    records = measure([(attack, model) for attack in attacks for model in radii], protocol)
    assert [record.correct.shape for record in records] == [r.case.shape for r in records]
