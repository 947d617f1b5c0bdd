"""A cluster of three nodes on this machine, and runs of the suite on it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workers import ROOT

# Left out of comparisons: what another run takes and when.
TIMES = ("training_seconds", "attack_seconds", "measured_at", "seal")
NODE = {"num_cpus": 1, "object_store_memory": 150 * 2**20, "memory": 2 * 2**30}


class Nodes:
    """A cluster whose parts can be killed."""

    def __init__(self, cluster):
        self.cluster, self.address = cluster, cluster.address

    def workers(self):
        """The process ids of the workers that have started, by node."""
        found = []
        for node in self.cluster.list_all_nodes():
            (raylet,) = node.all_processes["raylet"]
            tasks = Path(f"/proc/{raylet.process.pid}/task").glob("*/children")
            for task in tasks:
                with contextlib.suppress(OSError):  # It has just ended.
                    for pid in map(int, task.read_text().split()):
                        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Remote"):
                            found.append(pid)
        return found

    def kill_a_worker(self, run):
        """The one that was started first; where none has started, the run's next one."""
        deadline = time.monotonic() + 120
        while run.goes_on() and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                if found := self.workers():
                    os.kill(min(found), signal.SIGKILL)
                    return
            time.sleep(0.05)
        raise AssertionError("no worker has started")

    def lose_a_node(self):
        """One without the driver, and all its workers."""
        *_, last = self.cluster.list_all_nodes()
        self.cluster.remove_node(last, allow_graceful=False)

    def gain_a_node(self):
        self.cluster.add_node(**NODE)


@pytest.fixture(scope="session")
def nodes():
    """Three nodes of one core and one thread each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**NODE)
    yield Nodes(cluster)
    cluster.shutdown()


class Run:
    """`pytest benchmarks/` at the smoke budget, in a process of its own.

    Args:
        cache: holds how to compute, the same for all runs that are compared.
    """

    def __init__(self, folder, cache, wanted, *more):
        self.results, self.folder = folder / "results", folder
        command = [sys.executable, "-m", "pytest", "benchmarks/", "-k", wanted]
        command += ["--budget", "smoke", "-q", "--benchmark-disable", "-p", "no:cacheprovider"]
        command += [f"--store={folder / 'store'}", f"--results={self.results}", *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        folder.mkdir(parents=True, exist_ok=True)
        self._printed = (folder / "printed").open("w+")
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "XDG_CACHE_HOME": str(cache)},
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )

    def records(self):
        """What its records say, by key."""
        contents = {path.stem: json.loads(path.read_text()) for path in self.results.glob("*.json")}
        return {k: {n: v for n, v in c.items() if n not in TIMES} for k, c in contents.items()}

    def measured(self):
        return len(list(self.results.glob("*.json")))

    def wait_for(self, count):
        """Wait until so many cells are measured, or the run has ended; whether it goes on."""
        while self.measured() < count and self.goes_on():
            time.sleep(0.05)
        return self.goes_on()

    def goes_on(self):
        return self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait()

    def printed(self):
        """Wait for its end, which must be good, and return what it printed."""
        code = self._process.wait()
        self._printed.seek(0)
        text = self._printed.read()
        assert code == 0, text
        return text
