"""Jobs go to workers; what fails stays where it is. The workers are made up."""

import io
import re
import sys
import time
import warnings
from dataclasses import replace

import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.engine import dispatch
from randomized_defense_bench.benchmarks.engine.dispatch import DEATHS, Dispatcher
from randomized_defense_bench.benchmarks.engine.jobs import EngineError, Event, Job, Outcome
from randomized_defense_bench.leaderboard import records
from samples import record

AT = ThreatModel("Linf", 0.3)
TRAINING = Job(key="d-ulm", population=("d", "ulm"), seconds=1.0)
CELLS = [
    Job(key=f"cell {n}", population=("d", "ulm"), seconds=n, needs=("d-ulm",), cell=("pgd", AT, ""))
    for n in (3, 2, 1)
]


class Workers:
    """They do at once what they are told, by `do(worker, order)`; or what befalls them is told."""

    device, share, room = "cpu", 1.0, "a worker needs 64 CPU; nodes have 32 CPU"

    def __init__(self, do, count=2):
        self.do, self.names, self.sent, self.stopped = do, [*range(count)], {}, []
        self.orders = []

    def __len__(self):
        return len(self.names)

    def idle(self, wanted):
        return [name for name in self.names if name not in self.sent]

    def send(self, worker, order):
        self.sent[worker] = order
        self.orders.append((worker, order))

    def wait(self, seconds):
        done = [(worker, self.do(worker, order)) for worker, order in self.sent.items()]
        done = [(worker, outcome) for worker, outcome in done if outcome != "at work"]
        for worker, outcome in done:
            if outcome is not Event.PROGRESS:
                del self.sent[worker]
        return done

    def stop(self, worker):
        self.stopped.append(worker)
        del self.sent[worker]

    def close(self):
        self.names = []


def dispatcher(workers, jobs=(TRAINING, *CELLS), limit=60.0, succeeded=lambda *_: []):
    return Dispatcher(workers, jobs, limit=limit, succeeded=succeeded)


def doing(workers):
    return [(order.job.key, order.smaller) for _, order in workers.orders]


def test_the_longest_cells_follow_their_training_and_each_is_done_once():
    workers = Workers(lambda *_: Outcome())
    run = dispatcher(workers)
    for cell in reversed(CELLS):
        run.finish(cell.key)
    assert [key for key, _ in doing(workers)] == ["d-ulm", "cell 3", "cell 2", "cell 1"]


def test_what_has_a_record_by_now_is_not_measured():
    workers = Workers(lambda *_: Outcome())
    run = dispatcher(workers, succeeded=lambda job, _: ["cell 3"] if job == TRAINING else [])
    for cell in CELLS:
        run.finish(cell.key)
    assert [key for key, _ in doing(workers)] == ["d-ulm", "cell 2", "cell 1"]


def test_a_failure_fails_its_own_case_and_a_failed_training_all_of_its_own():
    failing = {"cell 2"}
    told = ValueError("the attack broke its contract")
    workers = Workers(lambda _, order: Outcome(error=told if order.job.key in failing else None))
    run = dispatcher(workers)
    run.finish("cell 1")
    run.finish("cell 3")
    with pytest.raises(ValueError, match="broke its contract"):
        run.finish("cell 2")

    failing = {"d-ulm"}
    run = dispatcher(workers)
    for key in ("d-ulm", "cell 3", "cell 1"):
        with pytest.raises(ValueError, match="broke its contract"):
            run.finish(key)


@pytest.mark.parametrize(
    "error",
    [
        None,
        torch.OutOfMemoryError("of 80 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes"),
    ],
)
def test_a_cell_that_ends_its_workers_is_named_tried_smaller_and_failed(error):
    death = Outcome(error=error) if error else Event.DIED
    workers = Workers(lambda _, order: death if order.job.key == "cell 2" else Outcome())
    run = dispatcher(workers)
    with (
        pytest.warns(UserWarning, match=f"cell 2 has ended {DEATHS} workers: once more"),
        pytest.raises(EngineError, match="cell 2 ended 4 workers"),
    ):
        run.finish("cell 2")
    run.finish("cell 3")
    run.finish("cell 1")
    mine = [smaller for key, smaller in doing(workers) if key == "cell 2"]
    assert mine == [False] * DEATHS + [True]


def test_workers_that_die_now_and_then_lose_nothing():
    deaths = iter(range(2 * 4))
    dying = (0, 1, 3, 6)
    workers = Workers(lambda *_: Event.DIED if next(deaths, None) in dying else Outcome())
    run = dispatcher(workers)
    for cell in CELLS:
        run.finish(cell.key)


def test_what_takes_too_long_is_stopped_and_the_rest_goes_on():
    workers = Workers(lambda _, order: "at work" if order.job.key == "cell 3" else Outcome())
    run = dispatcher(workers, limit=0.05)
    run.finish("cell 1")
    with pytest.raises(EngineError, match="cell 3 took longer than 0.05 s; --time-limit"):
        run.finish("cell 3")
    assert len(workers.stopped) == 1


def test_a_cluster_without_room_is_told_once_it_has_been_waited_for(monkeypatch):
    monkeypatch.setattr(dispatch, "PATIENCE", 0.01)
    run = dispatcher(Workers(lambda *_: Outcome(), count=0))
    for _ in range(2):
        with pytest.raises(EngineError, match="no worker has started .* needs 64 CPU"):
            run.finish("cell 1")


def test_what_the_driver_does_meanwhile_is_no_waiting_for_workers(monkeypatch):
    monkeypatch.setattr(dispatch, "PATIENCE", 0.05)
    workers = Workers(lambda *_: Outcome(), count=0)
    run = dispatcher(workers)
    time.sleep(0.1)
    turns = iter(range(3))
    monkeypatch.setattr(workers, "idle", lambda wanted: [0] if next(turns, None) is None else [])
    run.finish("cell 1")


@pytest.mark.parametrize("where", ["taken over", "sent", "warned of"])
def test_an_error_of_the_driver_fails_its_own_job_and_no_other(where, recwarn):
    """A full disk, say, for one cell; whichever case waits."""
    full = OSError(28, "No space left on device")
    broken = UserWarning("odd") if where == "warned of" else full

    def refuse(job):
        if job.key == "cell 3":
            raise full
        return []

    outcome = Outcome(warnings=("odd",)) if where == "warned of" else Outcome()
    workers = Workers(lambda _, order: outcome if order.job.key == "cell 3" else Outcome())
    if where == "sent":
        send = workers.send
        workers.send = lambda worker, order: refuse(order.job) or send(worker, order)
    if where == "warned of":
        warnings.simplefilter("error")
    keep = (lambda job, _: refuse(job)) if where == "taken over" else (lambda *_: [])
    run = dispatcher(workers, succeeded=keep)
    for key in ("cell 1", "cell 2"):
        run.finish(key)
    with pytest.raises(type(broken), match=str(broken.args[-1])):
        run.finish("cell 3")


def test_lost_nodes_and_deaths_after_progress_are_not_charged_to_a_job():
    """A training of a week outlives any number of them; one that makes no progress does not."""
    lost = iter([Event.NODE_LOST] * 10)
    run = dispatcher(Workers(lambda *_: next(lost, Outcome()), count=6))
    run.finish("cell 1")
    events = iter([Event.PROGRESS, Event.DIED] * 10)
    run = dispatcher(Workers(lambda *_: next(events, Outcome()), count=1))
    run.finish("cell 1")
    run = dispatcher(Workers(lambda *_: Event.DIED))
    with pytest.warns(UserWarning, match="once more"), pytest.raises(EngineError, match="ended 4"):
        run.finish("cell 1")


class Terminal(io.StringIO):
    """A file that is one, or is none."""

    def __init__(self, there):
        super().__init__()
        self.there = there

    def isatty(self):
        return self.there


@pytest.mark.parametrize("there", [True, False])
def test_progress_says_what_is_done_what_runs_where_and_when_it_ends(monkeypatch, there):
    monkeypatch.setattr(sys, "stderr", Terminal(there))
    monkeypatch.setattr(dispatch, "TICK", 0.0)
    workers = Workers(lambda *_: Outcome(), count=1)
    run = dispatcher(workers)
    run.finish("cell 2")
    at_work = iter(["at work", "at work"])
    workers.do = lambda *_: next(at_work, Outcome())
    run.finish("cell 1")
    shown = sys.stderr.getvalue()
    for told in ("2/3", r"end \d\d:\d\d", "1 running, cell 1 on 0 for longest"):
        assert bool(re.search(told, shown)) == there, told


def test_the_driver_takes_little_time_for_a_cell(tmp_path):
    """Its record's file included; of 20 ms."""
    made = record()
    cases = [replace(made.case, seed=seed) for seed in range(500)]
    jobs = [replace(CELLS[0], key=case.key) for case in cases]
    by_key = {case.key: replace(made, case=case) for case in cases}

    def keep(job, outcome):
        records.write(outcome.value, tmp_path)
        return []

    workers = Workers(lambda _, order: Outcome(value=by_key[order.job.key]), count=64)
    run = dispatcher(workers, jobs, succeeded=keep)
    start = time.perf_counter()
    for job in jobs:
        run.finish(job.key)
    assert (time.perf_counter() - start) / len(jobs) < 0.02
    assert len(list(tmp_path.iterdir())) == len(jobs)
