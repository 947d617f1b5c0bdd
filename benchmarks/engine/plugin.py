"""pytest's side of it: the session of a run, its shard, and its plan."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from ...leaderboard import RESULTS, records
from ...leaderboard.records import Record, RecordError
from ..environment import environment, resolve_devices
from ..experiment import TIME_LIMITS
from ..options import EMPTY_SHARD
from ..populations import Options
from ..session import Session
from .dispatch import Pool
from .estimates import MACHINE, Estimates
from .jobs import EngineError
from .local import LocalPool
from .plan import ALIKE, plan_run
from .scheduling import shards
from .session import EngineSession


def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if getattr(option, "numprocesses", None) and (option.plan or option.engine == "ray"):
        told = "--plan starts nothing" if option.plan else "--engine ray runs cases elsewhere"
        raise pytest.UsageError(f"{told}: leave out -n")
    if unused := _unused(option):
        raise pytest.UsageError(unused)
    if option.shard and option.publish:
        told = "the committed records, by which shards are divided, must stay as they are"
        raise pytest.UsageError(f"--publish: {told}; `python -m leaderboard merge` joins shards")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the cases of the shard that is asked for."""
    if not config.option.shard:
        return
    number, count = config.option.shard
    # Not from the run's own: other shards must come to the same division, at another time.
    plan = plan_run(Session(options(config)), items, Estimates(_records(RESULTS)))
    if lines := plan.left_out(*ALIKE):
        told = "what one shard cannot plan, others might, and would divide otherwise"
        raise pytest.UsageError(f"--shard: {told}; leave it out by -k. {'; '.join(lines)}")
    for item in items:
        plan.cases.setdefault(item.nodeid, [])
    chosen = shards(plan.cases, plan.jobs, count)
    others = [item for item in items if chosen[item.nodeid] != number - 1]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if chosen[item.nodeid] == number - 1]
    if others and not items:
        config.stash[EMPTY_SHARD] = f"shard {number}/{count} is empty: nothing is left for it"


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Print the plan instead of running it, where it is asked for."""
    option = session.config.option
    if not option.plan:
        return None
    run, source = _planned(session.config, session.items)
    pool = _pool(session.config, run)
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    reporter.write_line("\n" + run.plan_of_run.report(pool, source))
    pool.close()
    return True


def parallel(config: pytest.Config) -> bool:
    """Whether workers do the work: a cluster's, or several of this machine."""
    here = config.option.engine == "local"
    return not here or ("workerinput" not in vars(config) and len(devices(config)) > 1)


def time_limit(config: pytest.Config) -> float:
    """Seconds that a case may take, or a job of workers."""
    seconds: float = config.option.time_limit or TIME_LIMITS[config.option.budget]
    return seconds


def options(config: pytest.Config) -> Options:
    """The options of a run, on the first of its devices, or on that of pytest-xdist's worker."""
    option, process = config.option, getattr(config, "workerinput", {})
    chosen = devices(config)
    number = int(process.get("workerid", "gw0").removeprefix("gw"))
    return Options(
        budget=option.budget,
        device=chosen[number % len(chosen)],
        seed=option.seed,
        data_root=option.data_root,
        store=option.store,
        results=option.results,
        rerun=option.rerun,
        retrain=option.retrain,
        norm=option.norm,
        eps=tuple(option.eps),
        submodels=option.submodels,
        run=process.get("testrunuid") or uuid.uuid4().hex,
    )


@contextmanager
def open_session(config: pytest.Config, items: Sequence[pytest.Item]) -> Iterator[Session]:
    """The session of a run of these cases; its workers end with it."""
    chosen = options(config)
    if not parallel(config):
        yield Session(chosen)
        return
    session, _ = _planned(config, items)
    with session.working(_pool(config, session), limit=time_limit(config)):
        yield session


def _planned(config: pytest.Config, items: Sequence[pytest.Item]) -> tuple[EngineSession, str]:
    """The session of these cases, and where its estimates come from, in words."""
    chosen = options(config)
    # The driver of a cluster says nothing of the pace of its nodes.
    here = environment(chosen.device) if config.option.engine == "local" else None
    folders = {RESULTS, chosen.results}
    timed = [record for folder in folders for record in _records(folder)]
    estimates = Estimates(timed, here)
    if here is None:
        source = "as records of all machines say; how fast the cluster's are is not known"
        return EngineSession(chosen, items, estimates), source
    machine = ", ".join(here[name] for name in MACHINE[:2]) + f", {here['threads']} threads"
    if estimates.ratio is None:
        source = f"as records of all machines say; none says how fast this one is ({machine})"
    else:
        pace = f"takes {estimates.ratio:.2g} times as long"
        source = f"as records say; this machine ({machine}) {pace}"
    return EngineSession(chosen, items, estimates), source


def _pool(config: pytest.Config, session: EngineSession) -> Pool:
    """The workers that are asked for; they start when there is work."""
    option = config.option
    if option.engine == "local":
        return LocalPool(devices(config), session.options, option.robustbench)
    from .cluster import ClusterPool

    try:
        pool = ClusterPool(
            option.address,
            session.options,
            gpus=0.0 if option.device == "cpu" else option.gpus,
            data=session.dataset,
            needs=session.needs,
        )
        if option.device == "cuda" and not pool.gpus:
            raise EngineError(f"--device cuda: no node of the cluster has a GPU ({pool.room})")
        return pool
    except EngineError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def _unused(option: Any) -> str | None:
    """Which of the options would do nothing, and why; None: all do something."""
    if option.engine == "local":
        given = {"--address": option.address != "auto", "--gpus": option.gpus != 1}
        named = [name for name, is_given in given.items() if is_given]
        return f"{' and '.join(named)}: for --engine ray only" if named else None
    if option.device not in ("auto", "cpu", "cuda"):
        return (
            f"--device {option.device}: workers of --engine ray take the GPUs that their nodes "
            "have; use auto, cpu or cuda"
        )
    if option.device == "cpu" and option.gpus != 1:
        return "--gpus: workers on CPUs, --device cpu, take none"
    if option.robustbench:
        return "--robustbench: the zoo's weights do not travel; leave out --engine ray"
    return None


def devices(config: pytest.Config) -> list[torch.device]:
    """Those of this machine that are asked for; of a cluster's driver, the CPU."""
    return resolve_devices("cpu" if config.option.engine == "ray" else config.option.device)


def _records(folder: Path) -> list[Record]:
    """The records of a folder that can be read."""
    usable = []
    for path in sorted(folder.glob("*.json")):
        with suppress(RecordError):
            usable.append(records.read(path))
    return usable
