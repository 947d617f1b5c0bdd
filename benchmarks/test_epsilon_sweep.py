"""Accuracy against eps, from clean images to beyond the largest radius that is ranked."""

from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.populations import Prepared
from randomized_defense_bench.benchmarks.session import Session

from .conftest import Measure


def test_epsilon_sweep(
    session: Session, population: Prepared, swept_attack: str, measure: Measure
) -> None:
    """Measure one curve; its point at 0 is the clean accuracy."""
    radii = session.sweep(population.dataset.name)
    clean = ThreatModel(session.options.norm, 0.0)
    records = measure([("none", clean), *((swept_attack, model) for model in radii)])
    assert [record.case.eps for record in records] == [0.0, *(model.eps for model in radii)]
