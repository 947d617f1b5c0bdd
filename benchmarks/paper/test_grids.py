"""Why numbers may differ from the paper's: other attacks and other training, as records."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.paper.grids import measure_grid
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.leaderboard.paper.grids import GRIDS

from ..conftest import failures_told, summary


@pytest.mark.parametrize("kind", list(GRIDS))
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_grids(
    session: Session,
    dataset: str,
    kind: str,
    terminal: Callable[[], AbstractContextManager[Any]],
    benchmark: BenchmarkFixture,
    record_property: Callable[[str, object], None],
) -> None:
    """Measure one grid of trainings x attacks beside the paper's populations."""
    options, numbers = session.options, session.experiment(dataset)
    if options.submodels == 1:
        pytest.skip("the paper's populations have several submodels: --submodels must be 2 or more")
    if kind == "retraining" and not numbers.figures.retrainings:
        pytest.skip(f"the {options.budget} budget retrains {dataset}'s CLM in one way only")
    if kind == "epochs" and not numbers.every_epoch:
        pytest.skip(f"the {options.budget} budget keeps {dataset}'s last epochs only")
    if options.norm != "Linf":
        pytest.skip("the paper attacks in Linf: --norm must be Linf")
    with (
        failures_told("the records cannot be kept: {}; --store and --results name other folders"),
        terminal(),
    ):
        _, measured, reused = benchmark.pedantic(
            measure_grid, args=(session, dataset, kind), rounds=1, iterations=1
        )
    record_property("cells", summary(session, measured, reused))
