"""Registries become pytest parameters; populations become fixtures."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from randomized_defense_bench.attacks import ATTACKS, CERTIFICATES, AttackError, ThreatModel
from randomized_defense_bench.benchmarks.case import protocols
from randomized_defense_bench.benchmarks.datasets import DATASETS, DatasetError, DatasetMissingError
from randomized_defense_bench.benchmarks.engine import plugin
from randomized_defense_bench.benchmarks.engine.jobs import EngineError
from randomized_defense_bench.benchmarks.populations import DefenseError, Prepared
from randomized_defense_bench.benchmarks.session import NoRadiusError, Session
from randomized_defense_bench.benchmarks.store import StoreError
from randomized_defense_bench.defenses import DEFENSES
from randomized_defense_bench.leaderboard.records import Protocol, Record

# What to do about a library that cannot be imported; torchattacks imports torchvision.
CURES = {
    "torchvision": "install torch and torchvision from one index in one command: "
    "pip install --force-reinstall torch torchvision",
    "torchattacks": "pip install --force-reinstall --no-deps torchattacks==3.5.1",
    "pyautoattack": "pip install -e '.[peers]'",
}

# Errors whose message says it all.
REFUSALS = (AttackError, DatasetError, DefenseError, EngineError, NoRadiusError, StoreError)
NOT_WRITTEN = "the record cannot be written: {}; --results names another folder"
PAPER = Path(__file__).parent / "paper"
# (cases as (attack, threat model), protocol) -> records
Measure = Callable[..., list[Record]]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(plugin)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every registered defense on every dataset that it is for; ids start `dataset-defense`.

    Those of the field run when they are asked for.
    """
    asked = metafunc.config.option.keyword
    if "population" in metafunc.fixturenames:
        cases = [
            pytest.param(
                (dataset, name), id=f"{dataset}-{name}", marks=[pytest.mark.field] * defense.field
            )
            for dataset in DATASETS
            for name, defense in ((name, DEFENSES[name]) for name in DEFENSES)
            if dataset in (defense.datasets or DATASETS)
            if not defense.field or name in asked or "field" in asked or "peers" in asked
        ]
        metafunc.parametrize("population", cases, indirect=True, scope="session")
    attacks = [name for name in ATTACKS if metafunc.config.option.norm in ATTACKS[name].norms]
    if "attack" in metafunc.fixturenames:
        metafunc.parametrize("attack", attacks)
    if "swept_attack" in metafunc.fixturenames:
        metafunc.parametrize("swept_attack", [name for name in attacks if ATTACKS[name].swept])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What takes long runs when it is asked for: studies by their folder, peers by `-k`."""
    folder = config.invocation_params.dir
    asked = [(folder / str(argument).partition("::")[0]).resolve() for argument in config.args]
    if collection_path.name == "test_peers.py" and "peers" not in config.option.keyword:
        return True if collection_path not in asked else None
    named = any(path.is_relative_to(PAPER) for path in asked)
    return True if collection_path == PAPER and not named else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what means nothing, and give each case its time limit.

    Without SIGALRM, on Windows, a limit would end the whole run.
    """
    limit = pytest.mark.timeout(plugin.time_limit(config), method="signal", func_only=False)
    meant = [item for item in items if _means_something(item)]
    if len(meant) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in meant])
        items[:] = meant
    for item in items:
        # Where workers do the work, each job has the limit.
        alone = not (plugin.parallel(config) and "population" in item.fixturenames)  # type: ignore[attr-defined]
        here = item.path.is_relative_to(Path(__file__).parent)
        if hasattr(signal, "SIGALRM") and here and alone:
            item.add_marker(limit)


def _means_something(item: pytest.Item) -> bool:
    """Whether a protocol says something of a defense: of one member, alone, only "doubled" does.

    "certified" does where the defense has a certificate in the norm.
    """
    parameters = getattr(item, "callspec", None)
    if parameters is None or "protocol" not in parameters.params:
        return True
    _, name = parameters.params["population"]
    defense = DEFENSES[name]
    if parameters.params["protocol"] == "certified":
        name = defense.certificate
        return name is not None and item.config.option.norm in CERTIFICATES[name].norms
    several = (defense.members or item.config.option.submodels or 2) > 1
    return parameters.params["protocol"] in protocols(several=several, random=defense.draws > 1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Say what took too long and how to allow more, where pytest-timeout says how long."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, pytest.fail.Exception) and str(error.msg).startswith("Timeout (>"):
        # What is trained or loaded for a case is a fixture.
        what = "training or loading for " if call.when == "setup" else ""
        limit = f"{plugin.time_limit(item.config):g} s"
        error.msg = f"{what}{item.name} took longer than {limit}; --time-limit allows more"
        error.pytrace = False


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The run, with the options it was started with."""
    with plugin.open_session(request.config, request.session.items) as session:
        yield session


@pytest.fixture(scope="session")
def terminal(pytestconfig: pytest.Config) -> Callable[[], AbstractContextManager[Any]]:
    """A context in which progress bars reach the terminal, if there is one."""
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def population(
    request: pytest.FixtureRequest,
    session: Session,
    terminal: Callable[[], AbstractContextManager[Any]],
) -> Prepared:
    """One population, trained or loaded, or held by workers; freed before the next is set up."""
    dataset, defense = request.param
    with failures_told("the store cannot be used: {}; --store names another"), terminal():
        return session.await_population(dataset, defense)


@contextmanager
def failures_told(no_access: str) -> Iterator[None]:
    """Turn what may go wrong in a case into one line that tells; missing data skips it.

    Args:
        no_access: what to say of a file that cannot be read or written, with {} for the error.
    """
    try:
        yield
        return
    except DatasetMissingError as error:
        pytest.skip(str(error))
    except REFUSALS as error:
        message = str(error)
    except Exception as error:
        if library := not_imported(error):
            message = f"{library} cannot be imported ({error}): {CURES[library]}"
        elif isinstance(error, OSError):
            message = no_access.format(error)
        else:
            raise
    raise pytest.fail.Exception(message, pytrace=False) from None


def not_imported(error: Exception) -> str | None:
    """The library of `CURES` that is missing, or raised this when it was imported."""
    raising = {
        frame.f_globals.get("__name__", "").partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    }
    missing = error.name if isinstance(error, ImportError) else None
    return next((library for library in CURES if library in {*raising, missing}), None)


@pytest.fixture
def timed(
    benchmark: BenchmarkFixture, terminal: Callable[[], AbstractContextManager[Any]]
) -> Callable[..., Any]:
    """Run a function once, timed by pytest-benchmark: (see `failures_told`, function, *args)."""

    def run(no_access: str, function: Callable[..., Any], *args: Any) -> Any:
        with failures_told(no_access), terminal():
            return benchmark.pedantic(function, args=args, rounds=1, iterations=1)

    return run


@pytest.fixture
def measure(
    benchmark: BenchmarkFixture,
    session: Session,
    population: Prepared,
    timed: Callable[..., Any],
    record_property: Callable[[str, object], None],
) -> Measure:
    """Attack it, [(attack, threat model), ...] -> records, timed by pytest-benchmark."""

    def run(cases: Sequence[tuple[str, ThreatModel]], protocol: Protocol = "draw") -> list[Record]:
        def measure_all() -> list[tuple[Record, bool]]:
            return [session.measure(population, *case, protocol) for case in cases]

        measured = timed(NOT_WRITTEN, measure_all)
        reused = sum(was_there for _, was_there in measured)
        records = [record for record, _ in measured]
        benchmark.extra_info["budget"] = session.options.budget
        benchmark.extra_info["protocol"] = protocol
        benchmark.extra_info["accuracy"] = {
            f"{r.case.attack} {r.case.eps:g}": r.score.value for r in records
        }
        benchmark.extra_info["reused"] = reused
        record_property("cells", summary(session, len(measured) - reused, reused))
        return records

    return run


def summary(session: Session, measured: int, reused: int) -> dict[str, object]:
    """What a case did, for the end of the run."""
    compared, session.compared = session.compared, {}
    return {
        "measured": measured,
        "reused": reused,
        "trained": list(session.trained),
        "compared": compared,
        "process": os.getpid(),
    }
