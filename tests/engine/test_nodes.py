"""Workers on nodes that come, die and differ; Ray is made up, the workers' own code is not."""

import itertools
import socket
import sys
import tempfile
import threading
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.engine import cluster
from randomized_defense_bench.benchmarks.engine.cluster import ClusterPool, connect
from randomized_defense_bench.benchmarks.engine.dispatch import Dispatcher
from randomized_defense_bench.benchmarks.engine.estimates import Estimates
from randomized_defense_bench.benchmarks.engine.jobs import EngineError, Job
from randomized_defense_bench.benchmarks.engine.session import EngineSession
from randomized_defense_bench.benchmarks.environment import environment
from randomized_defense_bench.benchmarks.populations import Options
from randomized_defense_bench.benchmarks.store import FileCheckpoint, weights_sha256
from torch import nn

EPOCHS = 4
SMOKE = DATASETS["digits"].experiments["smoke"]
TRAINING = Job(key="digits-single", population=("digits", "single"), seconds=1.0)


class RayError(Exception):
    """A worker or its node is gone."""


class RayTaskError(RayError):
    """A task raised."""

    def __init__(self, cause):
        self.cause = cause


class Ref:
    def __init__(self, make):
        self._make = make

    def get(self):
        return self._make()


class Actor:
    """An object on a node; `Ray.dies` says whether it is killed before it yields a file."""

    def __init__(self, ray, kind, node):
        self.ray, self.node, self.number = ray, node, next(ray.numbers)
        self._object = kind()

    def __getattr__(self, name):
        return SimpleNamespace(
            remote=lambda *arguments: Ref(lambda: self._call(name, *arguments)),
            options=lambda num_returns: SimpleNamespace(remote=self._stream),
        )

    def _call(self, name, *arguments):
        if self.node not in self.ray.listening or self.node == self.ray.broken:
            raise RayError("the worker is gone")
        self.ray.current = self
        try:
            return getattr(self._object, name)(*arguments)
        except Exception as error:
            raise RayTaskError(error) from error
        finally:
            self.ray.current = None

    def _stream(self, *arguments):
        if self.node not in self.ray.listening:
            raise RayError("the node is gone")
        # Ray hands over what an argument refers to, but for what lies deeper.
        given = [value.get() if isinstance(value, Ref) else value for value in arguments]
        for item in self._object.run(*given):
            if self.ray.dies(self, item[0]):
                raise RayError("killed")
            yield Ref(lambda item=item: item)


class Ray(ModuleType):
    """As much of it as workers and pool call, with nodes a and b of room for one worker each."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self):
        super().__init__("ray")
        self.numbers, self.current, self.dies = itertools.count(), None, lambda actor, name: False
        self.actors, self.broken = [], None
        self.listening = {name: socket.create_server(("127.0.0.1", 0)) for name in "ab"}
        self._ports = {name: s.getsockname()[1] for name, s in self.listening.items()}
        self.util = SimpleNamespace(get_node_ip_address=lambda: self.current.node)

    def lose(self, node):
        self.listening.pop(node).close()

    def nodes(self):
        """A lost node is alive for half a minute more."""
        there = {"Alive": True, "NodeManagerAddress": "127.0.0.1"}
        resources = {"CPU": 1.0, "memory": 2.0 * 2**30}
        return [
            {**there, "NodeID": name, "NodeManagerPort": port, "Resources": resources}
            for name, port in self._ports.items()
        ]

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, kind):
        def start(scheduling_strategy, **_):
            self.actors.append(Actor(self, kind, scheduling_strategy))
            return SimpleNamespace(remote=lambda: self.actors[-1])

        return SimpleNamespace(options=start)

    def get_runtime_context(self):
        actor = self.current
        return SimpleNamespace(
            get_accelerator_ids=dict,
            get_node_id=lambda: actor.node,
            get_actor_id=lambda: f"{actor.number:06}",
        )

    def put(self, value):
        return Ref(lambda: value)

    def get(self, ref, timeout=None):
        return [one.get() for one in ref] if isinstance(ref, list) else ref.get()

    def wait(self, waiting, num_returns, timeout):
        return waiting[:1], waiting[1:]

    def kill(self, actor):
        pass

    def shutdown(self):
        pass


@pytest.fixture
def ray(monkeypatch, tmp_path):
    ray = Ray()
    strategies = ModuleType("strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
    monkeypatch.setattr(cluster, "connect", lambda address: ray)
    monkeypatch.setattr(cluster, "WATCH", 0.05)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    recipes = {**SMOKE.recipes, "default": replace(SMOKE.recipes["default"], epochs=EPOCHS)}
    experiments = {**DATASETS["digits"].experiments, "smoke": replace(SMOKE, recipes=recipes)}
    monkeypatch.setitem(
        DATASETS._entries, "digits", replace(DATASETS["digits"], experiments=experiments)
    )
    yield ray
    for server in ray.listening.values():
        server.close()


@pytest.fixture
def driver(ray, tmp_path):
    """A session, its pool and its dispatcher, with a training to be done."""
    folders = {name: tmp_path / name for name in ("data_root", "store", "results")}
    session = EngineSession(Options(budget="smoke", run="run", **folders), [], Estimates([]))
    session._ready["digits", "single"] = session.planned("digits", "single")
    pool = ClusterPool("auto", session.options, gpus=0.0, data=session.dataset, needs=session.needs)
    run = Dispatcher(pool, [TRAINING], limit=60.0, succeeded=session._succeeded)
    return SimpleNamespace(session=session, pool=pool, run=run)


class Killed(BaseException):
    """What nothing catches."""


def killed_at(epoch, monkeypatch):
    """The first worker dies once it has kept this epoch; return the list of the epochs trained."""
    epochs, save = [], FileCheckpoint.save

    def count(self, population, optimizer, done):
        save(self, population, optimizer, done)
        epochs.append(done)
        if len(epochs) == epoch:
            # The thread ends, the worker with it.
            raise Killed

    monkeypatch.setattr(FileCheckpoint, "save", count)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    return epochs


def finished(driver):
    folder = driver.session.planned("digits", "single").folder
    return {path.name for path in folder.iterdir()} >= {"card.json", "weights.safetensors"}


def test_a_training_goes_on_from_the_last_epoch_on_another_node(ray, driver, monkeypatch):
    epochs = killed_at(2, monkeypatch)
    # Without an outcome the generator ends in an error, as Ray's does when a worker is killed.
    monkeypatch.setattr(Actor, "_stream", dying(Actor._stream, lambda actor: ray.lose(actor.node)))
    driver.run.finish(TRAINING.key)
    assert epochs == [1, 2, 3, 4]
    assert len({actor.node for actor in ray.actors}) == 2
    assert finished(driver)
    assert not driver.run._deaths


def dying(stream, then):
    def until_it_dies(self, *arguments):
        try:
            yield from stream(self, *arguments)
        except IndexError:
            then(self)
            raise RayError("killed") from None

    return until_it_dies


def test_the_driver_has_members_for_those_who_ask_for_them(driver):
    """Studies and peers, which measure on the driver; cells do without."""
    session = driver.session
    session.plan_of_run.jobs[TRAINING.key], session._dispatcher = TRAINING, driver.run
    promised = session.await_population("digits", "single")
    assert isinstance(promised.population.submodels[0], nn.Identity)
    prepared = session.prepare("digits", "single")
    assert weights_sha256(prepared.population) == promised.sha256
    assert session.trained == [prepared.folder.name]


def test_what_a_node_finished_and_nobody_sent_is_sent_by_the_next_worker(ray, driver, monkeypatch):
    """The worker died in the second between."""
    killed = []

    def at_the_first_file(actor, name):
        killed.append(actor)
        return len(killed) == 1

    ray.dies = at_the_first_file
    monkeypatch.setattr(cluster, "WATCH", 60.0)
    ray.lose("b")
    driver.pool._rooms.pop("b", None)
    driver.run.finish(TRAINING.key)
    assert finished(driver)
    assert driver.session.needs(replace(TRAINING, cell=("none", None, "draw")))[0] != []


def test_idle_workers_of_a_lost_node_are_given_nothing(ray, driver):
    assert wait_for(driver.pool, 2)
    ray.lose("a")
    assert not driver.pool._is_there("a")
    (left,) = driver.pool.idle(1)
    assert left.startswith("b ")


def wait_for(pool, count):
    """Names of so many idle workers."""
    while len(pool.idle(count)) < count:
        pool.wait(0.0)
    return pool.idle(count)


@pytest.mark.parametrize("lost", [True, False])
def test_a_node_where_all_workers_die_at_once_is_left_out_unless_it_is_lost(ray, driver, lost):
    ray.broken = "a"
    if lost:
        ray.lose("a")
    told = pytest.warns(UserWarning, match="node a is left out: 6 workers died there at once")
    with nullcontext() if lost else told:
        for _ in range(cluster.FALSE_STARTS + 1):
            driver.pool._looked = -cluster.LOOK
            driver.pool.idle(2)
            while driver.pool._starting:
                driver.pool.wait(0.0)
    (left,) = driver.pool._actors
    assert left.startswith("b ")
    assert driver.pool._unfit == (set() if lost else {"a"})


@pytest.mark.parametrize("odd", ["a", "ab"])
def test_a_node_of_another_commit_is_left_out_unless_none_remains(ray, driver, monkeypatch, odd):
    def there(device):
        other = ray.current and ray.current.node in odd
        return {**environment(device), **({"commit": "another"} if other else {})}

    monkeypatch.setattr(cluster, "environment", there)
    refused = pytest.raises(EngineError, match="no node can be used: b .* commit another")
    with (
        pytest.warns(UserWarning, match="node a is left out: .* has commit another"),
        refused if odd == "ab" else nullcontext(),
    ):
        driver.run.finish(TRAINING.key)
    if odd == "ab":
        return
    assert len(driver.pool) == 1
    assert {actor.node for actor in ray.actors} == {"a", "b"}
    assert [name[0] for name in driver.pool._actors] == ["b"]


def test_two_runs_on_a_node_have_a_store_each(ray, driver, tmp_path):
    workers = [cluster.Remote() for _ in range(2)]
    ray.current = SimpleNamespace(node="a", number=1)
    for worker, run in zip(workers, ("one", "other"), strict=True):
        worker.hello(replace(driver.session.options, run=run), 1)
        worker._root.mkdir(parents=True)
    workers[0].clean()
    assert not workers[0]._root.exists()
    assert workers[1]._root.exists()


def test_a_full_disk_of_the_driver_fails_the_job_whose_file_it_is(ray, driver, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    # Nodes write by way of `_write`.
    write = cluster.write_atomically
    monkeypatch.setattr(cluster, "_write", lambda path, content: write(path, content))
    monkeypatch.setattr(cluster, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        driver.run.finish(TRAINING.key)


def test_rays_client_is_refused(ray):
    with pytest.raises(EngineError, match="ray://head:10001: .* start pytest on one of the nodes"):
        connect("ray://head:10001")


def test_a_report_without_room_says_what_a_worker_needs(ray, driver, monkeypatch):
    monkeypatch.setitem(driver.pool._resources, "num_cpus", 64)
    told = driver.session.plan_of_run.report(driver.pool, "")
    assert "a worker needs 64 CPU, 2 GiB; nodes have 1 CPU, 2 GiB | 1 CPU, 2 GiB" in told
