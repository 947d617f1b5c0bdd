"""Two nodes against one, on digits, in turn: `pytest -n0 -s tests/cluster/scaling.py`.

Each node has one core and one thread; the machine must have two cores to itself for a quarter of an
hour, so that this runs only when it is named. It times the run of the README, at its budget.
BUDGET=smoke in the environment takes two minutes and fails: of half a minute on one node a third is
start and end of a run, which no second node shortens (37 and 26 s: 0.70).
"""

import os
import time

from ray.cluster_utils import Cluster

from .conftest import NODE, Run

WANTED = "digits and not reproduction"
BUDGET = os.environ.get("BUDGET", "quick")


def seconds(count, folder, cache):
    """What a first run takes on so many nodes, without the start of the cluster."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    for _ in range(count - 1):
        cluster.add_node(**NODE)
    try:
        start = time.perf_counter()
        on_nodes = ("--engine", "ray", "--address", cluster.address, "--budget", BUDGET)
        Run(folder, cache, WANTED, *on_nodes).printed()
        return time.perf_counter() - start
    finally:
        cluster.shutdown()


def test_two_nodes_take_two_thirds_of_the_time_of_one(tmp_path):
    # Once before, to find out how to compute: that is not timed.
    Run(tmp_path / "first", tmp_path / "cache", WANTED, "--budget", BUDGET).printed()
    one, two = (seconds(n, tmp_path / str(n), tmp_path / "cache") for n in (1, 2))
    print(f"\ndigits, {BUDGET}: {one:.0f} s on one node, {two:.0f} s on two: {two / one:.2f}")
    assert two / one <= 0.65
