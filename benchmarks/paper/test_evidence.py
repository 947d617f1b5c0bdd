"""The paper's figures from our populations: the data is measured here, drawn with the page."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.paper.evidence import KINDS, gather
from randomized_defense_bench.benchmarks.session import Session

from ..conftest import failures_told, summary


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_evidence(
    session: Session,
    dataset: str,
    kind: str,
    terminal: Callable[[], AbstractContextManager[Any]],
    benchmark: BenchmarkFixture,
    record_property: Callable[[str, object], None],
) -> None:
    """Measure one kind of evidence on the populations that the paper compares."""
    if session.options.submodels == 1:
        pytest.skip("evidence compares submodels with each other: --submodels must be 2 or more")
    if session.options.norm != "Linf":
        pytest.skip("the paper attacks in Linf: --norm must be Linf")
    with (
        failures_told("the evidence cannot be kept: {}; --store and --results name other folders"),
        terminal(),
    ):
        found, reused = benchmark.pedantic(
            gather, args=(session, dataset, kind), rounds=1, iterations=1
        )
    record_property("cells", summary(session, int(not reused), int(reused)))
    assert found.path(session.options.results).exists()
