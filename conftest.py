"""What a run refuses, its header, and the leaderboard at its end."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from randomized_defense_bench.benchmarks.options import EMPTY_SHARD
from randomized_defense_bench.benchmarks.paths import obstacle
from randomized_defense_bench.leaderboard import CONFIRMED, LOCAL, RESULTS, WITHIN

ROOT = Path(__file__).parent
# For a run that does not read pyproject.toml, which names it earlier.
pytest_plugins = ("randomized_defense_bench.benchmarks.options",)
BENCHMARK = "benchmark"
SUMMARY: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = []
    config.addinivalue_line("markers", "field: a defense of another paper")
    if config.option.norm == "Linf" and any(eps > 1 for eps in config.option.eps):
        raise pytest.UsageError("--eps: in Linf at most 1, the range of pixels; 8/255 is 8 of 255")
    if config.option.device not in ("auto", "cpu") and config.option.engine == "local":
        from randomized_defense_bench.benchmarks.environment import resolve_devices

        try:
            resolve_devices(config.option.device)
        except ValueError as error:
            raise pytest.UsageError(f"--device: {error}") from error
    if config.option.publish:
        if config.option.results not in (LOCAL, RESULTS):
            raise pytest.UsageError(f"--publish: it writes {RESULTS}; leave out --results")
        config.option.results = RESULTS
    if _asks_for_benchmarks(config) and (problem := _unusable_folder(config.option)):
        raise pytest.UsageError(problem)
    for name in config.option.robustbench:
        from randomized_defense_bench.benchmarks.zoo import register_zoo

        try:
            register_zoo(name, config.option.norm, config.option.data_root / "models")
        except (ImportError, LookupError) as error:
            raise pytest.UsageError(f"--robustbench: {error}") from error


def _unusable_folder(option: Any) -> str | None:
    """Why a run cannot do with the folders it is given, or None."""
    folders = {"--data-root": option.data_root, "--store": option.store}
    # What is there already is read; it need not be writable.
    absent = {name: folder for name, folder in folders.items() if not os.path.isdir(folder)}
    for name, folder in {**absent, "--results": option.results}.items():
        if problem := obstacle(folder):
            return f"{name}: {problem}; name another folder"
    if problem := obstacle(option.results.parent):
        inside = option.results / "results"
        return f"--results: the page goes beside the folder, but {problem}; name {inside}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the tests on all cores, with pytest-xdist, unless something speaks against it."""
    option = config.option
    if (
        config.pluginmanager.hasplugin("xdist")
        and not hasattr(config, "workerinput")
        and option.numprocesses is None
        and option.dist == "no"
        and not (option.usepdb or option.trace or option.collectonly or option.capture == "no")
        and not (option.showfixtures or option.show_fixtures_per_test)
        and not _asks_for_benchmarks(config)
        and (len(_paths(config)) > 1 or any(path.is_dir() for path in _paths(config)))
    ):
        option.numprocesses, option.dist = "auto", "worksteal"
        # Each imports torch, in seconds and half a gigabyte.
        option.maxprocesses = option.maxprocesses or 8
        # It would warn that it does nothing in parallel runs; no test uses it.
        option.benchmark_disable = True


def _paths(config: pytest.Config) -> set[Path]:
    """The files and folders that a run is asked for."""
    folder = config.invocation_params.dir
    return {(folder / str(argument).partition("::")[0]).resolve() for argument in config.args}


def _asks_for_benchmarks(config: pytest.Config) -> bool:
    cases = ROOT / "benchmarks"
    return any(path.is_relative_to(cases) or cases.is_relative_to(path) for path in _paths(config))


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not _asks_for_benchmarks(config):
        return []
    from randomized_defense_bench.benchmarks.engine.plugin import devices
    from randomized_defense_bench.benchmarks.environment import environment

    option = config.option
    about = environment(devices(config)[0])
    versions = ", ".join(f"{k} {about[k]}" for k in ("torch", "torchvision", "torchattacks"))
    return [
        f"randomized defense bench: budget {option.budget}, device {about['device']} "
        f"({about['threads']} threads), seed {option.seed}, {versions}",
        f"data: {option.data_root}  store: {option.store}  results: {option.results}",
    ]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Mark the benchmarks; say what would do when `-k` selects none of them."""
    benchmarks = [item for item in items if item.path.is_relative_to(ROOT / "benchmarks")]
    for item in benchmarks:
        # A report tells no path, and its name starts at whatever pytest takes for the root.
        item.user_properties.append((BENCHMARK, True))
    yield
    expression = config.option.keyword
    if benchmarks and not items and expression and EMPTY_SHARD not in config.stash:
        raise pytest.UsageError(explain_empty_selection(expression, config.option.norm))


def explain_empty_selection(expression: str, norm: str = "Linf") -> str:
    """One line for a `-k` expression that matches no case."""
    from randomized_defense_bench.attacks import ATTACKS
    from randomized_defense_bench.benchmarks.datasets import DATASETS
    from randomized_defense_bench.defenses import DEFENSES

    known = [*DATASETS, *DEFENSES, *ATTACKS]
    words = [w for w in re.findall(r"[\w-]+", expression) if w not in ("and", "or", "not")]
    hints = []
    for word in words:
        if not any(word in name for name in known):
            near = difflib.get_close_matches(word, known, n=1)
            hints.append(f"unknown {word!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    return (
        f"-k {expression!r} selects nothing: {'; '.join(hints) or 'no case has all of these'} "
        f"(datasets: {', '.join(DATASETS)}; defenses: {', '.join(DEFENSES)}; "
        f"attacks in {norm}: {', '.join(a for a in ATTACKS if norm in ATTACKS[a].norms)})"
    )


def _is_benchmark(one: pytest.Item | pytest.TestReport) -> bool:
    return any(name == BENCHMARK for name, _ in one.user_properties)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Say of a case, with -v, that it gives the committed answers."""
    compared = [how for cells in _cells(report) for how in cells["compared"].values()]
    confirmed = report.when == "call" and compared and {*compared} == {CONFIRMED}
    return ("passed", ".", "CONFIRMED") if confirmed and report.passed else None


def _cells(report: pytest.TestReport) -> list[Any]:
    """What a case did; see `benchmarks.conftest.summary`."""
    # What failed to be collected has none.
    return [value for name, value in getattr(report, "user_properties", ()) if name == "cells"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Rebuild the page from all records; fail a run that measured nothing."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    reports = [r for r in _benchmark_reports(config) if r.when == "call" or not r.passed]
    lines = config.stash[SUMMARY]
    interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED
    items = getattr(session, "items", [])
    if interrupted and any(_is_benchmark(item) for item in items):
        without = (
            ""
            if not (config.option.rerun or config.option.retrain)
            else (", without --rerun and --retrain")
        )
        lines.append(f"interrupted: the same command{without} goes on where this one stopped")
    elif EMPTY_SHARD in config.stash:
        lines.append(config.stash[EMPTY_SHARD])
        session.exitstatus = pytest.ExitCode.OK
        return
    elif not reports:
        return
    if reports and all(report.skipped for report in reports):
        reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in reports}
        lines += [f"ERROR: nothing was measured. {reason}" for reason in sorted(reasons)]
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return
    properties = [cells for report in reports for cells in _cells(report)]
    measured = sum(cells["measured"] for cells in properties)
    reused = sum(cells["reused"] for cells in properties)
    # Each process lists what it trained so far; the same population trained by two counts twice.
    trained = {(cells["process"], name) for cells in properties for name in cells["trained"]}
    lines.append(
        f"populations trained: {len(trained)}; cells measured: {measured}, re-used: {reused}"
    )
    lines += _confirmation({k: v for cells in properties for k, v in cells["compared"].items()})
    results = config.option.results
    if not (measured or reused or results.is_dir()):
        return
    try:
        from randomized_defense_bench.leaderboard.publish import publish

        lines.append(f"leaderboard: {publish(results)}")
        return
    except KeyboardInterrupt:
        problem, session.exitstatus = "interrupted", pytest.ExitCode.INTERRUPTED
    except Exception as error:
        # Whatever a record or a library did, the run is summed up.
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    again = f"python -m leaderboard --results {shlex.quote(str(results))}"
    lines.append(f"ERROR: the leaderboard was not rebuilt ({problem}); {again} tries again")


def _confirmation(compared: Mapping[str, str]) -> list[str]:
    """How many cells confirm the committed records, and what differs; see `Session.compared`."""
    counts = Counter(compared.values())
    confirmed, within = counts.pop(CONFIRMED, 0), counts.pop(WITHIN, 0)
    differing = [f"{key}: {how}" for key, how in compared.items() if how in counts]
    line = f"{confirmed} of {len(compared)} cells confirm the committed records"
    line += f", {within} within their intervals" * bool(within)
    line += f", {len(differing)} outside:" * bool(differing)
    return [line, *differing] if compared else []


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The last words, after pytest-benchmark's table."""
    lines = config.stash[SUMMARY]
    if lines:
        terminalreporter.section("randomized defense bench")
    for line in lines:
        terminalreporter.line(line, red=line.startswith("ERROR"))


def _benchmark_reports(config: pytest.Config) -> list[pytest.TestReport]:
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    return [
        report
        for reports in reporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and _is_benchmark(report)
    ]
