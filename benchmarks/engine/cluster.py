"""Workers on a Ray cluster: an actor for each device, on any node.

Data and weights travel through Ray's object store, once to each node. A node keeps a store of its
own; what changes in it while a job runs comes back to the driver's store, so that another node can
go on from the last checkpoint or block.
"""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...files import write_atomically
from ..datasets import Dataset
from ..environment import environment
from ..populations import Options
from .jobs import EngineError, Event, Job, Order, Outcome
from .worker import Worker

Needs = tuple[Sequence[str], Sequence[str]]
INSTALL = "pip install -e '.[cluster]'"
# What a worker takes at most, as benchmarks/test_speed.py measures it and demands it.
MEMORY = 2 * 2**30
# Seconds between two looks at the nodes, and at what has changed in a node's store.
LOOK, WATCH = 5.0, 1.0
# Populations and datasets that wait in the object store.
KEPT = 8
# Workers in a row that may die on a node, which is still there, before they have done anything.
FALSE_STARTS = 5
# What must be the same on every node.
ALIKE = ("commit", "torch", "torchattacks", "arithmetic")
# Ray's names of resources, by those of its options.
RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


class ClusterPool:
    """An actor for each device of a cluster, as nodes come and go.

    Args:
        address: "auto", as a started cluster is found; one's own; or "local", to start one here.
        options: the driver's; device, store and results of each worker are its node's.
        gpus: what a worker takes of a GPU, where nodes have any; 0: workers compute on CPUs. All
            have as many threads as the driver.
        data: a dataset by name.
        needs: which folders of the store a job takes with it, and patterns of those that it goes
            on from, whose changes come back at once.

    Attributes:
        gpus: what a worker takes of a GPU; 0: it computes on a CPU.
    """

    def __init__(
        self,
        address: str,
        options: Options,
        *,
        gpus: float,
        data: Callable[[str], Dataset],
        needs: Callable[[Job], Needs],
    ) -> None:
        self._ray = connect(address)
        self._options, self._data, self._needs = options, data, needs
        self.gpus = gpus if self._ray.cluster_resources().get("GPU") else 0.0
        self._without_gpus = gpus > self.gpus
        self._resources: dict[str, float] = {
            "num_cpus": torch.get_num_threads(),
            "num_gpus": self.gpus,
            "memory": MEMORY,
        }
        self._remote = self._ray.remote(Remote)
        # Actors with the ids of their nodes.
        self._starting: dict[Any, tuple[Any, str]] = {}
        self._actors: dict[str, tuple[Any, str]] = {}
        self._streams: dict[str, Any] = {}
        self._sent: dict[str, tuple[object, Any]] = {}
        self._unfit: set[str] = set()
        self._false_starts: Counter[str] = Counter()
        self._looked, self._rooms = -LOOK, dict[str, int]()

    def __len__(self) -> int:
        """How many workers there is room for."""
        self._look()
        return sum(self._rooms.values())

    @property
    def device(self) -> str:
        """What a worker computes on."""
        return f"{self.gpus:g} GPU" if self.gpus else f"{self._resources['num_cpus']} CPU threads"

    @property
    def share(self) -> float:
        """How many devices a worker takes."""
        return self.gpus or 1.0

    @property
    def room(self) -> str:
        """What a worker needs, and what there is, in words."""
        nodes = [_amounts(node["Resources"]) for node in self._nodes()]
        needed = {RESOURCES[name]: amount for name, amount in self._resources.items()}
        return f"a worker needs {_amounts(needed)}; nodes have {' | '.join(nodes)}"

    def idle(self, wanted: int) -> list[str]:
        """The names of workers without a job; more are started where there is room."""
        self._look()
        for name, (_, node) in list(self._actors.items()):
            # With a job, `wait` sees to it.
            if name not in self._streams and node not in self._rooms:
                self.stop(name)
        count = len(self._actors) + len(self._starting)
        taken = Counter(node for _, node in (*self._actors.values(), *self._starting.values()))
        for node, room in self._rooms.items():
            for _ in range(min(room - taken[node], wanted - count)):
                self._start(node)
                count += 1
        return [name for name in self._actors if name not in self._streams]

    def send(self, worker: str, order: Order) -> None:
        """Have a worker do a job."""
        folders, begun = self._needs(order.job)
        dataset, _ = order.job.population
        root = self._options.store
        goes_on = {
            str(path.relative_to(root)): path.read_bytes()
            for pattern in begun
            for path in _files(root, pattern)
        }
        self._streams[worker] = (
            self._actors[worker][0]
            .run.options(num_returns="streaming")
            .remote(
                order,
                self._once(dataset, None, lambda: _packed(self._data(dataset))),
                [self._finished(folder) for folder in folders],
                self._ray.put(goes_on) if goes_on else None,
                begun,
            )
        )

    def wait(self, seconds: float) -> list[tuple[str, Outcome | Event]]:
        """What a worker is done with, or what befell it, after so many seconds at most."""
        waiting = [*self._starting, *self._streams.values()]
        if not waiting:
            time.sleep(seconds)
            return []
        for ready in self._ray.wait(waiting, num_returns=1, timeout=seconds)[0]:
            if ready in self._starting:
                self._welcome(*self._starting.pop(ready), ready)
                continue
            worker = next(name for name, stream in self._streams.items() if stream is ready)
            try:
                name, content = self._ray.get(next(ready))
            except self._ray.exceptions.RayTaskError as error:
                del self._streams[worker]
                return [(worker, Outcome(error=EngineError(f"{worker}: {error.cause}")))]
            except (self._ray.exceptions.RayError, StopIteration):
                lost = not self._is_there(self._actors[worker][1])
                self.stop(worker)
                return [(worker, Event.NODE_LOST if lost else Event.DIED)]
            try:
                if name:
                    write_atomically(self._options.store / name, content)
                    return [(worker, Event.PROGRESS)]
                outcome = pickle.loads(content)
            except Exception as error:
                # The driver's, a full disk, say: the job fails, and no other.
                self.stop(worker)
                return [(worker, Outcome(error=error))]
            del self._streams[worker]
            return [(worker, outcome)]
        return []

    def stop(self, worker: str) -> None:
        """End a worker, whatever it does; another takes its place."""
        self._streams.pop(worker, None)
        self._ray.kill(self._actors.pop(worker)[0])

    def close(self) -> None:
        """End all workers, and remove what they left on their nodes."""
        with suppress(self._ray.exceptions.RayError):
            idle = [self._actors[name][0] for name in self._actors if name not in self._streams]
            self._ray.get([actor.clean.remote() for actor in idle], timeout=LOOK)
        self._ray.shutdown()

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _look(self) -> None:
        """See which nodes there are, and how many workers each has room for, now and then."""
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            nodes = {node["NodeID"]: node["Resources"] for node in self._nodes()}
            fit = (node for node in nodes if node not in self._unfit)
            self._rooms = {node: self._fitting(nodes[node]) for node in fit}
            if self._without_gpus and any(node.get("GPU") for node in nodes.values()):
                self._without_gpus = False
                told = "GPUs have joined a run that began on CPUs, and stay idle"
                warnings.warn(f"{told}: start it again to use them", stacklevel=2)

    def _is_there(self, node: str) -> bool:
        """Whether a node still answers; Ray itself knows it only after half a minute."""
        for alive in self._nodes():
            if alive["NodeID"] == node:
                address = alive["NodeManagerAddress"], alive["NodeManagerPort"]
                with suppress(OSError):
                    socket.create_connection(address, timeout=LOOK).close()
                    return True
        self._rooms.pop(node, None)
        return False

    def _fitting(self, resources: Mapping[str, float]) -> int:
        """How many workers a node with these resources has room for."""
        return min(
            int(resources.get(RESOURCES[name], 0) / amount)
            for name, amount in self._resources.items()
            if amount
        )

    def _start(self, node: str) -> None:
        """Start a worker on a node, and on no other."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        placed = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._remote.options(**self._resources, scheduling_strategy=placed).remote()
        hello = actor.hello.remote(self._options, self._resources["num_cpus"])
        self._starting[hello] = actor, node

    def _welcome(self, actor: Any, node: str, hello: Any) -> None:
        """Take in a worker that has started; EngineError: none can be."""
        try:
            name, about = self._ray.get(hello)
        except self._ray.exceptions.RayTaskError as error:
            self._leave_out(actor, node, f"a worker cannot start there: {error.cause}")
            return
        except self._ray.exceptions.RayError as error:
            self._false_starts[node] += self._is_there(node)
            if self._false_starts[node] > FALSE_STARTS:
                why = f"{self._false_starts[node]} workers died there at once: {error}"
                self._leave_out(actor, node, why)
            return
        here = environment(torch.device("cpu"))
        for what in ALIKE:
            if about[what] != here[what]:
                told = f"{name} has {what} {about[what]}, the driver {here[what]}"
                self._leave_out(actor, node, f"{told}: install the same on every node")
                return
        del self._false_starts[node]
        self._actors[name] = actor, node

    def _leave_out(self, actor: Any, node: str, why: str) -> None:
        """Do without a node, with a warning; EngineError: no other is left."""
        self._ray.kill(actor)
        self._rooms.pop(node, None)
        if not any(self._rooms.values()):
            raise EngineError(f"no node can be used: {why}")
        if node not in self._unfit:
            self._unfit.add(node)
            warnings.warn(f"node {node[:8]} is left out: {why}", stacklevel=2)

    def _finished(self, folder: str) -> Any:
        """A finished population, in the object store."""
        where = self._options.store / folder
        names = ("weights.safetensors", "card.json")

        def read() -> dict[str, bytes]:
            return {f"{folder}/{name}": (where / name).read_bytes() for name in names}

        return self._once(folder, (where / "card.json").stat().st_mtime_ns, read)

    def _once(self, name: str, version: object, read: Callable[[], Any]) -> list[Any]:
        """What is read, put into the object store once; in a list, so that nodes fetch it late."""
        sent = self._sent.pop(name, None)
        if sent is None or sent[0] != version:
            while len(self._sent) >= KEPT:
                del self._sent[next(iter(self._sent))]
            sent = version, self._ray.put(read())
        # At the end: what has not been used for longest is dropped first.
        self._sent[name] = sent
        return [sent[1]]


class Remote:
    """A worker as Ray's actor, with the store of its node."""

    def hello(self, options: Options, threads: int) -> tuple[str, dict[str, str]]:
        """Start; return a name that says where, and this machine's `environment`."""
        import ray

        context = ray.get_runtime_context()
        torch.set_num_threads(threads)
        gpus = context.get_accelerator_ids().get("GPU", [])
        # Ray shows an actor its own GPU only.
        device = torch.device("cuda:0" if gpus else "cpu")
        parent = Path(tempfile.gettempdir(), f"randomized-defense-bench-{os.getuid()}")
        parent.mkdir(mode=0o700, exist_ok=True)
        if parent.stat().st_uid != os.getuid():
            raise PermissionError(f"{parent} belongs to somebody else")
        # Tests have several nodes on one machine, and a cluster may have several drivers.
        self._folder = parent / f"{options.run}-{context.get_node_id()}"
        self._root = self._folder / "store"
        here: dict[str, Any] = {
            "store": self._root,
            "results": self._folder / "results",
            "device": device,
        }
        self._worker = Worker(replace(options, **here))
        self._dataset: Any = None
        self._seen: dict[Path, tuple[int, int]] = {}
        where = f"GPU {gpus[0]}" if gpus else "CPU"
        address = ray.util.get_node_ip_address()
        return f"{address} {where} {context.get_actor_id()[:6]}", environment(device)

    def run(
        self,
        order: Order,
        dataset: list[Any],
        finished: Sequence[list[Any]],
        begun: Any,
        watched: Sequence[str],
    ) -> Iterator[tuple[str, bytes]]:
        """Do a job; yield the files that change in the node's store, and last ("", outcome)."""
        import ray

        if dataset[0] != self._dataset:
            self._worker.know(_unpacked(ray.get(dataset[0])))
            self._dataset = dataset[0]
        for population in finished:
            for name, content in ray.get(population[0]).items():
                _write(self._root / name, content)
        received = [self._root / name for name in begun or {}]
        for path, content in zip(received, (begun or {}).values(), strict=True):
            _write(path, content)
        # What else lies here, of a worker that died, the driver has not seen.
        self._seen = {p: state for p, state in self._states(watched) if p in received}
        known, made = len(self._worker.trained), list[bytes]()
        work = Thread(target=lambda: made.append(self._worker.run(order)))
        work.start()
        while work.is_alive():
            work.join(WATCH)
            yield from self._changed(watched)
        # What it was started from, too, if nobody had trained that.
        trained = [f"populations/{name}" for name in self._worker.trained[known:]]
        yield from self._changed((*watched, *trained))
        yield "", made[0]

    def clean(self) -> None:
        """Remove all that this node has."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _states(self, patterns: Sequence[str]) -> Iterator[tuple[Path, tuple[int, int]]]:
        for pattern in patterns:
            for path in _files(self._root, pattern):
                with suppress(FileNotFoundError):
                    state = path.stat()
                    yield path, (state.st_mtime_ns, state.st_size)

    def _changed(self, patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The files that are not as they were last seen."""
        for path, state in self._states(patterns):
            if self._seen.get(path) != state:
                with suppress(FileNotFoundError):
                    yield str(path.relative_to(self._root)), path.read_bytes()
                    self._seen[path] = state


def connect(address: str) -> Any:
    """Ray, connected to a cluster; EngineError: it is not there, or not installed."""
    try:
        import ray
    except ImportError as error:
        raise EngineError(f"--engine ray: Ray cannot be imported ({error}): {INSTALL}") from None
    if address.startswith("ray://"):
        told = "workers stream files, which Ray's client cannot: start pytest on one of the nodes"
        raise EngineError(f"--address {address}: {told}")
    start: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    host, _, port = address.rpartition(":")
    try:
        if port and host:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), timeout=LOOK).close()
        ray.init(address, log_to_driver=False, logging_level="error", **start)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        raise EngineError(
            f"--address: no cluster at {address!r} ({first}); start one with `ray start --head`, "
            "or name `--address local`"
        ) from None
    return ray


def _amounts(resources: Mapping[str, float]) -> str:
    """Of a node or for a worker, in words."""
    gibibytes = resources.get("memory", 0) / 2**30
    gpus = f"{gpu:g} GPU, " if (gpu := resources.get("GPU", 0)) else ""
    return f"{gpus}{resources.get('CPU', 0):g} CPU, {gibibytes:.3g} GiB"


def _files(root: Path, pattern: str) -> list[Path]:
    """The files of the store's folders of a pattern, the cards last: they make the rest valid."""
    paths = (p for folder in root.glob(pattern) if folder.is_dir() for p in folder.iterdir())
    files = (path for path in paths if path.suffix in (".safetensors", ".json"))
    return sorted(
        (path for path in files if not path.name.startswith(".")),
        key=lambda path: (path.suffix == ".json", path),
    )


def _write(path: Path, content: bytes) -> None:
    """Write what another worker of the node has not written already."""
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _packed(dataset: Dataset) -> dict[str, Any]:
    """A dataset with arrays for tensors, which processes of a node share."""
    names = [field.name for field in fields(Dataset) if field.init]
    content = {name: getattr(dataset, name) for name in names}
    return {n: v.numpy() if isinstance(v, Tensor) else v for n, v in content.items()}


def _unpacked(content: Mapping[str, Any]) -> Dataset:
    """A dataset of this process: shared memory is read-only, and a training may not be."""
    arrays = {n: v for n, v in content.items() if isinstance(v, np.ndarray)}
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return Dataset(**{**content, **tensors})
