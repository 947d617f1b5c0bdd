"""Accuracy against eps, from clean images to beyond the largest radius that is ranked."""

from attacks import ThreatModel
from benchmarks.conftest import Measure
from benchmarks.populations import Prepared
from benchmarks.session import Session


def test_epsilon_sweep(
    session: Session, population: Prepared, swept_attack: str, measure: Measure
) -> None:
    """Measure one curve; its point at 0 is the clean accuracy."""
    radii = session.sweep(population.dataset.name)
    clean = ThreatModel(session.options.norm, 0.0)
    records = measure([("none", clean), *((swept_attack, model) for model in radii)])
    assert [record.case.eps for record in records] == [0.0, *(model.eps for model in radii)]
