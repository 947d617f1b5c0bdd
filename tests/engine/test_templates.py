"""The templates of docs/cluster.md."""

import os
import re
import shlex
import subprocess
from argparse import ArgumentParser
from pathlib import Path

from randomized_defense_bench.benchmarks import options

TEXT = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
SCRIPTS = re.findall(r"```bash\n(#!.*?)```", TEXT, re.S)
ENTRYPOINT = re.search(r"entrypoint: >-\n\s+(.*?)\n  \w", TEXT, re.S)


# What programs do in place of themselves; `srun` says on how many cores.
PROGRAMS = {
    "srun": """while [[ $1 == -* || $1 == node* ]]; do shift; done
        exec "$@" ${SRUN_CPUS_PER_TASK:+on $SRUN_CPUS_PER_TASK cores}""",
    "scontrol": "echo node1; echo node2",
    **dict.fromkeys(("pytest", "ray"), "echo $(basename $0) $@ >> $CALLS"),
}


def run(script, folder, **environment):
    """What `pytest` and `ray` are called with, and on how many cores by `srun`."""
    for name, does in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/bash\n{does}\n")
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    given = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "WORK": "/work"}
    command = ["bash", "-eu", "-c", f"{script}\nwait"]
    subprocess.run(command, env={**given, **environment}, check=True)
    return calls.read_text().splitlines()


def parsed(call):
    """The options of a call of pytest, which must all be ours or pytest's own."""
    parser = ArgumentParser()
    group = type("Group", (), {"addoption": parser.add_argument})
    options.pytest_addoption(type("Parser", (), {"getgroup": lambda *_: group}))
    parser.add_argument("-k")
    parser.add_argument("folder")
    return parser.parse_args(shlex.split(call)[1:])


def test_a_task_of_a_slurm_array_runs_its_shard(tmp_path):
    numbers = {
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_TASK_COUNT": "3",
        "SLURM_CPUS_PER_TASK": "4",
    }
    (call,) = run(SCRIPTS[0], tmp_path, **numbers)
    asked = parsed(call)
    assert asked.shard == (2, 3)
    assert asked.results == Path("/work/shards/2/results")
    assert asked.store == Path("/work/store")


def test_a_slurm_job_of_several_nodes_drives_a_cluster(tmp_path):
    numbers = {"SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "32"}
    calls = run(SCRIPTS[1], tmp_path, SLURM_JOB_NODELIST="node[1-2]", **numbers)
    on_cores = " on 32 cores"
    (call,) = (line for line in calls if line.startswith("pytest"))
    asked = parsed(call.removesuffix(on_cores))
    assert (asked.engine, asked.address) == ("ray", "node1:6379")
    started = [line for line in calls if line.startswith("ray start")]
    assert len(started) == 2
    assert all(line.endswith(f"--num-cpus 32 --block{on_cores}") for line in started)
    assert call.endswith(on_cores)


def test_a_job_of_kubernetes_drives_its_cluster():
    _, program, arguments = " ".join(ENTRYPOINT[1].split()).partition("pytest")
    asked = parsed(program + arguments)
    assert (asked.engine, asked.address) == ("ray", "auto")
