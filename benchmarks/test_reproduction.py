"""Do records hold? Some, drawn at random, are measured again from their seeds."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.environment import environment
from randomized_defense_bench.benchmarks.experiment import REPRODUCED
from randomized_defense_bench.benchmarks.reproduction import (
    all_seeds,
    candidates,
    deviation,
    measured_again,
)
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.leaderboard import records

from .conftest import failures_told


@pytest.mark.parametrize("dataset", list(DATASETS))
def test_reproduction(
    session: Session,
    dataset: str,
    tmp_path: Path,
    terminal: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Measure three records once more; what the store does not hold is trained first."""
    options = session.options
    trained = set() if options.retrain else session.store.trained()
    # Of a case that was measured twice the later one.
    everything = [*{r.case.key: r for r in records.read_all(options.results)}.values()]
    here = environment(options.device)
    found = candidates(everything, dataset, options.budget, trained, here)
    if not found:
        pytest.skip(
            f"no record of {dataset}, {options.budget} budget, in {options.results} "
            "that this machine could measure again and judge"
        )
    deviations = {}
    for record in random.sample(found, min(REPRODUCED, len(found))):
        key = record.case.key
        with failures_told("the store cannot be used: {}; --store names another"), terminal():
            print(f"\nmeasuring again: {key}")
            again = measured_again(record, session, tmp_path)
            deviations[key] = deviation(record, again, all_seeds(record, everything))
    assert not any(deviations.values()), deviations
