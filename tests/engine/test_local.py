"""Several devices of one machine, and what pytest's options make of them."""

import os
import pickle
import re
import signal
import sys
from argparse import ArgumentTypeError
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks import options as command_line
from randomized_defense_bench.benchmarks.engine import plugin
from randomized_defense_bench.benchmarks.engine.dispatch import Dispatcher
from randomized_defense_bench.benchmarks.engine.estimates import Estimates
from randomized_defense_bench.benchmarks.engine.jobs import Job, Order
from randomized_defense_bench.benchmarks.engine.local import LocalPool
from randomized_defense_bench.benchmarks.engine.plan import RunPlan, cached, plan_run
from randomized_defense_bench.benchmarks.engine.worker import Worker
from randomized_defense_bench.benchmarks.environment import resolve_devices
from randomized_defense_bench.benchmarks.populations import Options
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.defenses.surrogate import Plan
from randomized_defense_bench.leaderboard import records
from workers import ROOT, command, run

ONE_BY_ONE = Plan(stacked=False, chunk=50, dtype="float32")
CPUS = [torch.device("cpu")] * 2
TRAINING = Job(key="digits-ulm-adv", population=("digits", "ulm-adv"), seconds=1.0, apart=True)


def options(folder, **changes):
    folders = {name: folder / name for name in ("data_root", "store", "results")}
    return Options(budget="smoke", run="test", **folders, **changes)


@pytest.fixture
def pool(tmp_path):
    """Two processes that train one by one."""
    pool = LocalPool(CPUS, options(tmp_path / "apart", plan=ONE_BY_ONE))
    yield pool
    pool.close()


def test_members_trained_apart_are_those_of_a_serial_training_even_if_workers_die(tmp_path, pool):
    """With what each was after every epoch; and a cell of theirs has the serial answers."""
    serial = Session(options(tmp_path / "serial", plan=ONE_BY_ONE))
    expected = serial.prepare("digits", "ulm-adv")
    at = ThreatModel("Linf", 0.25)
    attacked, _ = serial.measure(expected, "fgsm", at)
    cell = Job(
        key="cell",
        population=TRAINING.population,
        seconds=1.0,
        needs=(TRAINING.key,),
        cell=("fgsm", at, "draw"),
    )
    values, kills = {}, []

    def succeeded(job, outcome):
        values[job.key] = outcome.value
        return []

    run = Dispatcher(pool, [TRAINING, cell], limit=60.0, succeeded=succeeded)
    take = pool.wait

    def kill(seconds):
        """One worker, in the middle of its member."""
        if not kills and len(pool._busy) == 2:
            kills.append(pool._processes[min(pool._busy)][0])
            os.kill(kills[0].pid, signal.SIGKILL)
        return take(seconds)

    pool.wait = kill
    run.finish("cell")
    assert kills
    assert values[TRAINING.key].sha256 == expected.sha256
    assert {f"{TRAINING.key} member {n}" for n in range(2)} < values.keys()
    assert (values["cell"].correct == attacked.correct).all()
    folders = [session.planned("digits", "ulm-adv").folder for session in (serial,)]
    again = Session(options(tmp_path / "apart", plan=ONE_BY_ONE))
    folders.append(again.planned("digits", "ulm-adv").folder)
    kept = [{p.name: p.read_bytes() for p in folder.glob("epoch-*")} for folder in folders]
    assert kept[0] == kept[1] != {}
    left = (tmp_path / "apart" / "store" / "populations").glob("*-m[01]-*")
    assert not [path for path in left if path.is_dir()]


def test_members_that_share_a_stack_or_a_link_stay_together(tmp_path):
    session = Session(options(tmp_path, plan=replace(ONE_BY_ONE, stacked=True)))
    assert session.apart("digits", "ulm") is None
    session = session.with_plan(ONE_BY_ONE)
    plans = [session.apart("digits", defense) for defense in ("ulm", "ulm-adv", "clm", "single")]
    assert plans == [ONE_BY_ONE, ONE_BY_ONE, None, None]


def test_a_run_on_two_devices_gives_the_answers_of_one_and_goes_on(tmp_path):
    wanted = "digits and single and not adv and (none or fgsm)"
    arguments = command(tmp_path, wanted, "-q", "--benchmark-disable", "--device", "cpu,cpu")
    assert "populations trained: 1; cells measured: 9," in run(arguments)
    serial = Session(options(tmp_path / "serial"))
    prepared = serial.prepare("digits", "single")
    for record in records.read_all(tmp_path / "results"):
        case = record.case
        at = ThreatModel(case.norm, case.eps)
        alone, _ = serial.measure(prepared, case.attack, at, case.protocol)
        assert (record.case, record.population_sha256) == (alone.case, alone.population_sha256)
        assert (record.correct == alone.correct).all()
    next((tmp_path / "results").glob("digits-single-fgsm*")).unlink()
    assert "populations trained: 0; cells measured: 1," in run(arguments)


def test_a_plan_starts_nothing_and_shards_are_all_of_it(tmp_path):
    wanted = "digits and ulm and not adv and not reproduction"
    arguments = command(tmp_path, wanted, "--collect-only", "-q")
    shards = ["--plan"], ["--shard", "1/2"], ["--shard", "2/2"]
    printed = [run([*arguments, *shard]) for shard in shards]
    assert "digits-ulm" in printed[0]
    assert "device hours, done in" in printed[0]
    assert not list(tmp_path.iterdir())
    whole, first, second = ({n for n in p.splitlines() if "::" in n} for p in printed)
    assert first | second == whole
    assert not first & second
    assert first
    assert second


def test_nothing_of_ray_is_imported_unless_it_is_asked_for(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray here')")
    arguments = command(tmp_path, "digits and single and not adv and none", "--device", "cpu,cpu")
    run(arguments, tmp_path)
    arguments += ["--engine", "ray", "--device", "cpu"]
    assert "pip install -e '.[cluster]'" in run(arguments, tmp_path, code=4)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("auto", [0, 1, 2]),
        ("cuda", [0, 1, 2]),
        ("cuda:0,cuda:2", [0, 2]),
        ("cuda:1,cuda:1", [1, 1]),
    ],
)
def test_devices_are_numbered_as_the_caller_sees_them(monkeypatch, asked, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert resolve_devices(command_line.devices(asked)) == [
        torch.device(f"cuda:{number}") for number in expected
    ]
    with pytest.raises(ValueError, match="'cuda:3' is not available"):
        resolve_devices("cuda:0,cuda:3")


def test_workers_of_pytest_xdist_have_a_device_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = SimpleNamespace(engine="local", device="auto", **dict.fromkeys(OPTIONS, ()))
    configs = [
        SimpleNamespace(option=asked, workerinput={"workerid": f"gw{k}", "testrunuid": "one"})
        for k in range(3)
    ]
    numbers = [plugin.options(config).device.index for config in configs]
    assert numbers == [0, 1, 0]
    assert not any(plugin.parallel(config) for config in configs)
    assert plugin.parallel(SimpleNamespace(option=asked))


OPTIONS = ("budget", "seed", "data_root", "store", "results", "rerun", "retrain", "norm", "eps")
OPTIONS += ("submodels",)


@pytest.mark.parametrize(
    ("parse", "wrong"),
    [
        *((command_line.shard, wrong) for wrong in ("0/2", "3/2", "half")),
        *((command_line.devices, wrong) for wrong in ("gpu", "cuda:0,auto")),
        *((command_line.share, wrong) for wrong in ("0", "2", "half")),
    ],
)
def test_options_that_mean_nothing_are_refused(parse, wrong):
    with pytest.raises(ArgumentTypeError, match=wrong):
        parse(wrong)


def test_peers_beside_other_cases_have_members_with_weights(tmp_path):
    """What workers do not measure is measured by the driver, on what they trained."""
    wanted = "digits and single and not adv and (peers or (none and mra))"
    arguments = command(tmp_path, wanted, "-q", "--benchmark-disable", "--device", "cpu,cpu")
    assert "populations trained: 1; cells measured: " in run(arguments)
    (clean,) = records.read_all(tmp_path / "results")
    peers = records.read_all(tmp_path / "results" / "peers")
    assert {peer.population_sha256 for peer in peers} == {clean.population_sha256}


@pytest.fixture
def ask(tmp_path, monkeypatch, capfd):
    """The suite in this process, without a network: its exit code and what it printed."""
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")

    def run_here(wanted, *arguments):
        places = [f"--{name}={tmp_path / name}" for name in ("store", "results", "data-root")]
        wanted += " and single and none and mra and not adv"
        command = [str(ROOT / "benchmarks"), f"--rootdir={ROOT}", "--budget=smoke", "-k", wanted]
        code = pytest.main([*command, *places, "-q", "-p", "no:cacheprovider", *arguments])
        return code, "".join(capfd.readouterr())

    return run_here


def test_a_shard_that_cannot_plan_a_case_is_refused_and_a_plan_names_it(ask):
    """Where its data is missing; other shards, which have it, would divide otherwise."""
    code, printed = ask("(digits or mnist)", "--shard", "1/2", "--collect-only")
    assert code == pytest.ExitCode.USAGE_ERROR
    told = r"not planned: mnist is not under .* \(test_mra\[mnist-single-none\]\)"
    assert re.search(f"--shard: .* leave it out by -k. {told}", printed)
    code, printed = ask("(digits or mnist)", "--plan")
    assert code == 0
    assert re.search(told, printed)
    assert "digits-single" in printed
    # Where there is nothing else, no empty table.
    _, printed = ask("mnist", "--plan")
    assert re.search(told, printed)
    assert "population " not in printed


def test_a_mistake_in_the_code_is_not_taken_for_missing_data(tmp_path):
    given = {"population": ("digits", "nobody's")}
    case = SimpleNamespace(nodeid="case", callspec=SimpleNamespace(params=given))
    with pytest.raises(LookupError, match="nobody's"):
        plan_run(Session(options(tmp_path)), [case], Estimates([]))


def test_an_empty_shard_is_a_success_and_an_empty_selection_is_none(ask):
    code, printed = ask("digits", "--shard", "2/2")
    assert code == 0
    assert "shard 2/2 is empty" in printed
    code, printed = ask("digits and nobody", "--shard", "2/2")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "unknown 'nobody'" in printed


def test_a_gpu_is_asked_of_the_cluster_not_of_its_driver(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, printed = ask("digits", "--engine=ray", "--device=cuda", "--plan")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "INTERNALERROR" not in printed
    assert "Ray cannot be imported" in printed


@pytest.mark.parametrize(
    ("engine", "changes", "told"),
    [
        ("local", {"gpus": 0.5}, "--gpus: for --engine ray only"),
        ("local", {"address": "head:6379"}, "--address: for --engine ray only"),
        ("ray", {"device": "cuda:0,cuda:2"}, "--device cuda:0,cuda:2: workers of --engine ray"),
        ("ray", {"device": "cpu", "gpus": 0.5}, "--gpus: workers on CPUs"),
        ("ray", {"robustbench": ["Standard"]}, "--robustbench: the zoo's weights do not travel"),
    ],
)
def test_options_that_do_nothing_are_refused(engine, changes, told):
    given = {"address": "auto", "gpus": 1.0, "device": "auto", "robustbench": []}
    nothing = {"numprocesses": None, "plan": False, "shard": None, "publish": False}
    option = SimpleNamespace(engine=engine, **{**given, **nothing, **changes})
    with pytest.raises(pytest.UsageError, match=told):
        plugin.pytest_configure(SimpleNamespace(option=option))


def test_a_plan_counts_shares_of_gpus_and_names_no_end_without_room():
    training = replace(TRAINING, seconds=7200.0)
    plan = RunPlan(jobs={training.key: training})

    def told(workers, share):
        class Pool(SimpleNamespace):
            def __len__(self):
                return workers

        return plan.report(Pool(share=share, device=f"{share:g} GPU", room="none here"), "")

    assert "1 jobs on 4 x 1 GPU: 2 GPU hours, done in 2:00:00" in told(4, 1.0)
    assert "1 jobs on 4 x 0.5 GPU: 1 GPU hours, done in 2:00:00" in told(4, 0.5)
    assert "1 jobs on 0 x 1 GPU: 2 GPU hours, none here" in told(0, 1.0)


def test_a_plan_changes_no_record(tmp_path):
    """Neither is one made a headline, nor is an unusable one set aside."""
    session = Session(options(tmp_path))
    prepared, at = session.prepare("digits", "single"), ThreatModel("Linf", 0.25)
    case = session.case(prepared, "none", ThreatModel("Linf", 0.0))
    extras = replace(session.extras(prepared, "none", at), headline=False)
    session.measure_case(prepared, case, extras)
    cell = Job(
        key=case.key,
        population=("digits", "single"),
        seconds=1.0,
        cell=("none", ThreatModel("Linf", 0.0), "draw"),
    )
    path = tmp_path / "results" / f"{case.key}.json"
    later = Session(options(tmp_path))
    for usable in (True, False):
        if not usable:
            path.write_text("{")
        before = path.read_bytes()
        assert cached(later, replace(prepared, trained=False), [cell]) == (
            {case.key} if usable else set()
        )
        assert path.read_bytes() == before


def test_a_smaller_retry_has_the_answers_with_a_quarter_of_the_images_at_once(tmp_path):
    population = ("digits", "single")
    cell = Job(
        key="cell",
        population=population,
        seconds=1.0,
        cell=("fgsm", ThreatModel("Linf", 0.25), "draw"),
    )
    worker = Worker(options(tmp_path, plan=ONE_BY_ONE))
    whole, smaller = (
        pickle.loads(worker.run(Order(job=cell, tuned={}, smaller=smaller))).value
        for smaller in (False, True)
    )
    computed = [one.environment["computation"] for one in (whole, smaller)]
    assert [Plan.parse(plan).chunk for plan in computed] == [50, 12]
    assert (whole.correct == smaller.correct).all()
