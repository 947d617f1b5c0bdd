"""Command-line options, report header, and the leaderboard at the end of a run."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.options import add_options, positive, radius
from benchmarks.paths import cache_folder

ROOT = Path(__file__).parent
SUMMARY: pytest.StashKey[list[str]] = pytest.StashKey()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("randomized defense bench")
    add_options(group.addoption, results=ROOT / "leaderboard" / "results")
    group.addoption(
        "--store",
        type=Path,
        default=cache_folder() / "store",
        help="folder for trained populations (default: %(default)s)",
    )
    group.addoption("--rerun", action="store_true", help="measure again what has a record already")
    group.addoption(
        "--retrain", action="store_true", help="train again what is in the store, and measure it"
    )
    group.addoption(
        "--time-limit",
        type=_seconds,
        metavar="SECONDS",
        help="fail a case that takes longer, training included, and go on (default: by budget, "
        "from ten minutes to a week)",
    )
    group.addoption(
        "--eps",
        type=radius,
        action="append",
        default=[],
        metavar="EPS",
        help="rank at this radius in the norm, such as 0.3 or 8/255, instead of the dataset's; "
        "repeatable",
    )
    group.addoption(
        "--submodels",
        type=positive,
        metavar="N",
        help="size of the populations, instead of the budget's; a defense of one member stays one",
    )
    group.addoption(
        "--robustbench",
        action="append",
        default=[],
        metavar="NAME",
        help="a model of RobustBench's zoo for the norm, as the defense robustbench-<name>, with "
        "its weights under <data-root>/models as that library lays them out; repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = []
    if config.option.norm == "Linf" and any(eps > 1 for eps in config.option.eps):
        raise pytest.UsageError("--eps: in Linf at most 1, the range of pixels; 8/255 is 8 of 255")
    if config.option.device in ("cuda", "mps"):
        from benchmarks.environment import resolve_device

        try:
            resolve_device(config.option.device)
        except ValueError as error:
            raise pytest.UsageError(f"--device: {error}") from error
    for name in config.option.robustbench:
        from benchmarks.zoo import register_zoo

        try:
            register_zoo(name, config.option.norm, config.option.data_root / "models")
        except (ImportError, LookupError) as error:
            raise pytest.UsageError(f"--robustbench: {error}") from error


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
    from benchmarks.environment import environment, resolve_device

    option = config.option
    about = environment(resolve_device(option.device))
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
    """Say what would do when `-k` selects no benchmark."""
    had_benchmarks = any(_is_benchmark(item.nodeid) for item in items)
    yield
    expression = config.option.keyword
    if had_benchmarks and not items and expression:
        raise pytest.UsageError(explain_empty_selection(expression, config.option.norm))


def explain_empty_selection(expression: str, norm: str = "Linf") -> str:
    """One line for a `-k` expression that matches no case."""
    from attacks import ATTACKS
    from benchmarks.datasets import DATASETS
    from benchmarks.paper.evidence import KINDS
    from defenses import DEFENSES
    from leaderboard.paper.grids import GRIDS

    known = [*DATASETS, *DEFENSES, *ATTACKS, *KINDS, *GRIDS]
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


def _is_benchmark(nodeid: str) -> bool:
    return nodeid.startswith("benchmarks/")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Rebuild the page from all records; fail a run that measured nothing."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    reporter = config.pluginmanager.getplugin("terminalreporter")
    reports = [r for r in _benchmark_reports(reporter) if r.when == "call" or not r.passed]
    lines = config.stash[SUMMARY]
    interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED
    if interrupted and any(_is_benchmark(item.nodeid) for item in getattr(session, "items", [])):
        without = (
            ""
            if not (config.option.rerun or config.option.retrain)
            else (", without --rerun and --retrain")
        )
        lines.append(f"interrupted: the same command{without} goes on where this one stopped")
    elif not reports:
        return
    if reports and all(report.skipped for report in reports):
        reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in reports}
        lines += [f"ERROR: nothing was measured. {reason}" for reason in sorted(reasons)]
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return
    from leaderboard.publish import fresh, page_path, publish
    from leaderboard.records import RecordError

    properties = [value for r in reports for name, value in r.user_properties if name == "cells"]
    measured = sum(cells["measured"] for cells in properties)
    reused = sum(cells["reused"] for cells in properties)
    # Each process lists what it trained so far; the same population trained by two counts twice.
    trained = {(cells["process"], name) for cells in properties for name in cells["trained"]}
    lines.append(
        f"populations trained: {len(trained)}; cells measured: {measured}, re-used: {reused}"
    )
    if not config.option.results.is_dir():
        return
    try:
        results = config.option.results
        page = page_path(results) if not measured and fresh(results) else publish(results)
        lines.append(f"leaderboard: {page}")
    except (RecordError, OSError) as error:
        lines.append(f"ERROR: the leaderboard was not rebuilt: {error}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    except KeyboardInterrupt:
        lines.append(
            "ERROR: interrupted before the leaderboard was rebuilt: python -m leaderboard does it"
        )
        session.exitstatus = pytest.ExitCode.INTERRUPTED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[SUMMARY]
    if lines:
        terminalreporter.section("randomized defense bench")
    for line in lines:
        terminalreporter.line(line, red=line.startswith("ERROR"))


def _benchmark_reports(reporter: Any) -> list[pytest.TestReport]:
    return [
        report
        for reports in reporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and _is_benchmark(report.nodeid)
    ]
