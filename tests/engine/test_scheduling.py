"""What is done next, how long it takes, and how it is divided."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from randomized_defense_bench.benchmarks.engine.estimates import Estimates
from randomized_defense_bench.benchmarks.engine.jobs import Job
from randomized_defense_bench.benchmarks.engine.scheduling import (
    Scheduler,
    makespan,
    shards,
)
from randomized_defense_bench.leaderboard import records

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"


@pytest.fixture(scope="module")
def recorded():
    """The records of all populations, some hundred times as many cells as there are."""
    return records.read_all(RESULTS)


def jobs_of(recorded, cells):
    """Trainings and cells with recorded durations, seed by seed, until there are so many cells."""
    jobs = {}
    again = ((seed, record) for seed in itertools.count() for record in recorded)
    for seed, record in itertools.islice(again, cells):
        case = record.case
        population = f"{case.dataset}-{case.budget}-s{seed}", case.defense
        training, key = "-".join(population), f"{case.key}-again{seed}"
        seconds = record.training_seconds + 1
        jobs.setdefault(training, Job(key=training, population=population, seconds=seconds))
        jobs[key] = Job(
            key=key,
            population=population,
            seconds=record.attack_seconds,
            needs=(training,),
            cell=(case.attack, case.eps, case.protocol),
        )
    return jobs


def least_makespan(jobs, devices):
    """No schedule is shorter: all work shared evenly, or a cell and the training that it needs."""
    seconds = {job.key: job.seconds for job in jobs}
    chains = (job.seconds + sum(seconds[key] for key in job.needs) for job in jobs)
    return max(sum(seconds.values()) / devices, max(chains))


@pytest.mark.parametrize("devices", [16, 64])
def test_ten_thousand_recorded_cells_take_hardly_longer_than_they_must(recorded, devices):
    jobs = list(jobs_of(recorded, 10_000).values())
    assert makespan(jobs, devices) <= 1.05 * least_makespan(jobs, devices)


def test_a_worker_goes_on_with_what_it_holds_unless_much_longer_work_waits():
    jobs = [
        Job(key=f"{name}{number}", population=(name, ""), seconds=seconds)
        for name, seconds in (("a", 12.0), ("b", 15.0), ("c", 100.0))
        for number in range(2)
    ]
    scheduler, held = Scheduler(jobs), ("a", "")
    taken = [scheduler.take(held).key for _ in jobs]
    assert taken == ["c0", "c1", "a0", "a1", "b0", "b1"]
    assert scheduler.take(held) is None


def test_work_shorter_than_loading_a_population_follows_the_population():
    jobs = [
        Job(key=f"{name}{number}", population=(name, ""), seconds=seconds)
        for number, seconds in enumerate((0.9, 0.4, 0.01))
        for name in "ab"
    ]
    jobs.append(Job(key="c0", population=("c", ""), seconds=1.9))
    scheduler, held, taken = Scheduler(jobs), None, []
    while job := scheduler.take(held):
        held = job.population
        taken.append(job.key)
    assert taken == ["c0", "a0", "a1", "a2", "b0", "b1", "b2"]


def test_what_needs_a_failed_job_is_dropped_and_nothing_else():
    jobs = [
        Job(key="ulm", population=("d", "ulm"), seconds=1.0),
        Job(key="clm", population=("d", "clm"), seconds=1.0, needs=("ulm",)),
        Job(key="cell", population=("d", "clm"), seconds=1.0, needs=("clm", "elsewhere")),
        Job(key="single", population=("d", "single"), seconds=1.0),
    ]
    scheduler = Scheduler(jobs)
    assert scheduler.drop("ulm") == ["ulm", "clm", "cell"]
    assert scheduler.take().key == "single"
    assert scheduler.take() is None


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shards_hold_every_case_once_share_no_cell_and_take_equally_long(recorded, count):
    jobs = jobs_of(recorded, len(recorded))
    cells = [key for key, job in jobs.items() if job.cell]
    # A curve's points are other cases' cells, too.
    cases = {f"case {number}": [cell] for number, cell in enumerate(cells)}
    cases |= {f"curve {number}": cells[number : number + 3] for number in range(0, 100, 10)}
    cases["without cells"] = []
    chosen = shards(cases, jobs, count)
    assert chosen.keys() == cases.keys()
    assert chosen == shards(dict(reversed(cases.items())), jobs, count)
    where = {}
    for name, keys in cases.items():
        for key in keys:
            assert where.setdefault(key, chosen[name]) == chosen[name]
    # A case is never divided, nor what it needs.
    longest = max(
        sum(jobs[key].seconds for key in {*keys, *(jobs[key].needs[0] for key in keys)})
        for keys in cases.values()
    )
    loads = []
    for number in range(count):
        mine = {key for key, shard in where.items() if shard == number}
        mine |= {need for key in mine for need in jobs[key].needs}
        loads.append(sum(jobs[key].seconds for key in mine))
    assert max(loads) <= 1.1 * max(longest, sum(loads) / count)


def test_estimates_come_from_the_most_similar_cells_and_this_machines_pace(recorded):
    mnist = [record for record in recorded if record.case.dataset == "mnist"]
    exact = Estimates(mnist)
    assert exact.ratio is None
    total = sum(record.attack_seconds for record in mnist)
    assert sum(exact.attack(record.case) for record in mnist) == pytest.approx(total, rel=0.2)

    here = {"device": "abacus", "processor": "beads", "threads": "1"}
    slow = [
        replace(r, attack_seconds=3 * r.attack_seconds, environment=here)
        for r in mnist[: len(mnist) // 2]
    ]
    scaled, last = Estimates([*mnist, *slow], here), mnist[-1].case
    assert scaled.ratio == pytest.approx(3, rel=0.1)
    assert scaled.attack(last) == pytest.approx(3 * exact.attack(last), rel=0.3)
