"""The tables: accuracy of every defense under every attack."""

from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.populations import Prepared
from randomized_defense_bench.benchmarks.session import Session

from .conftest import Measure


def test_mra(session: Session, population: Prepared, attack: str, measure: Measure) -> None:
    """Measure and record; a case fails when the attack breaks its contract."""
    radii = session.radii(population.dataset.name)
    if attack == "none":
        radii = (ThreatModel(session.options.norm, 0.0),)
    records = measure([(attack, threat_model) for threat_model in radii])
    assert [record.case.eps for record in records] == [model.eps for model in radii]
