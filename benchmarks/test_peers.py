"""Others' attacks beside the worst case: for the page `PEERS.md`, where they are asked for."""

from collections.abc import Callable
from typing import Any

from randomized_defense_bench.benchmarks.peers import measure_peers
from randomized_defense_bench.benchmarks.populations import Prepared
from randomized_defense_bench.benchmarks.session import Session

from .conftest import NOT_WRITTEN, summary


def test_peers(
    session: Session,
    population: Prepared,
    timed: Callable[..., Any],
    record_property: Callable[[str, object], None],
) -> None:
    """Measure all that fit the population."""
    measured = timed(NOT_WRITTEN, measure_peers, session, population)
    reused = sum(was_there for _, was_there in measured)
    record_property("cells", summary(session, len(measured) - reused, reused))
    assert measured
