"""Others' attacks beside the worst case: for the page `PEERS.md`, where they are asked for."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture
from randomized_defense_bench.benchmarks.peers import measure_peers
from randomized_defense_bench.benchmarks.populations import Prepared
from randomized_defense_bench.benchmarks.session import Session

from .conftest import failures_told, summary


def test_peers(
    session: Session,
    population: Prepared,
    terminal: Callable[[], AbstractContextManager[Any]],
    benchmark: BenchmarkFixture,
    record_property: Callable[[str, object], None],
) -> None:
    """Measure all that fit the population."""
    told = "the record cannot be written: {}; --results names another folder"
    with failures_told(told), terminal():
        measured = benchmark.pedantic(measure_peers, (session, population), rounds=1, iterations=1)
    reused = sum(was_there for _, was_there in measured)
    record_property("cells", summary(session, len(measured) - reused, reused))
    assert measured
