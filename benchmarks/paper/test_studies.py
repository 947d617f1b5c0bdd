"""What only the paper needs: the data of its figures, and why numbers may differ from its own."""

from collections.abc import Callable
from typing import Any

import pytest
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.paper.evidence import KINDS, gather
from randomized_defense_bench.benchmarks.paper.grids import measure_grid
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.leaderboard.paper.grids import GRIDS

from ..conftest import summary


@pytest.fixture
def measured(
    session: Session,
    timed: Callable[..., Any],
    record_property: Callable[[str, object], None],
) -> Callable[..., Any]:
    """Measure a study of a dataset: (function, dataset, kind) -> file, cells measured and kept."""
    if session.options.submodels == 1:
        pytest.skip("the paper's populations have several submodels: --submodels must be 2 or more")
    if session.options.norm != "Linf":
        pytest.skip("the paper attacks in Linf: --norm must be Linf")

    def run(measure: Callable[..., tuple[Any, int, int]], dataset: str, kind: str) -> Any:
        told = "the records cannot be kept: {}; --store and --results name other folders"
        file, new, kept = timed(told, measure, session, dataset, kind)
        record_property("cells", summary(session, new, kept))
        return file

    return run


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_evidence(measured: Callable[..., Any], dataset: str, kind: str) -> None:
    """Measure one kind of evidence on the populations that the paper compares."""
    assert measured(gather, dataset, kind).kind == kind


@pytest.mark.parametrize("kind", list(GRIDS))
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_grids(measured: Callable[..., Any], session: Session, dataset: str, kind: str) -> None:
    """Measure one grid of trainings x attacks beside the paper's populations."""
    budget, numbers = session.options.budget, session.experiment(dataset)
    if kind == "retraining" and not numbers.figures.retrainings:
        pytest.skip(f"the {budget} budget retrains {dataset}'s CLM in one way only")
    if kind == "epochs" and not numbers.every_epoch:
        pytest.skip(f"the {budget} budget keeps {dataset}'s last epochs only")
    assert measured(measure_grid, dataset, kind).path(session.options.results).exists()
