"""MRA against eps, from clean images to beyond the paper's largest perturbation."""

import pytest

from benchmarks.budgets import SWEEP_ATTACKS
from benchmarks.conftest import Measure
from benchmarks.session import Prepared, Session


@pytest.mark.parametrize("attack", SWEEP_ATTACKS)
def test_epsilon_sweep(
    session: Session, population: Prepared, attack: str, measure: Measure
) -> None:
    """Measure one curve; its point at 0 is the clean MRA."""
    numbers = session.experiment(population.dataset.name)
    radii = sorted({*numbers.eps, *numbers.sweep_eps})
    records = measure([("none", 0.0), *((attack, eps) for eps in radii)])
    assert [record.case.eps for record in records] == [0.0, *radii]
