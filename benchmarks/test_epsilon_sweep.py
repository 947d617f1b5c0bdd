"""MRA against eps, from clean images to beyond the paper's largest perturbation."""

import pytest

from benchmarks.conftest import Measure
from benchmarks.experiment import SWEEP_ATTACKS
from benchmarks.session import Prepared, Session


@pytest.mark.parametrize("attack", SWEEP_ATTACKS)
def test_epsilon_sweep(
    session: Session, population: Prepared, attack: str, measure: Measure
) -> None:
    """Measure one curve; its point at 0 is the clean MRA."""
    numbers = session.experiment(population.dataset.name)
    radii = sorted({*numbers.radii["Linf"], *numbers.sweep_radii["Linf"]})
    records = measure([("none", 0.0), *((attack, eps) for eps in radii)])
    assert [record.case.eps for record in records] == [0.0, *radii]
