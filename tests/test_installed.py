"""What is installed works in any folder: the one name, the examples."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from randomized_defense_bench.benchmarks import environment

import randomized_defense_bench as rdb

ROOT = Path(__file__).parents[1]
# Where the suite is imported from: the repository, or an environment that it is installed in.
HOME = Path(rdb.__file__).parents[1]
SCRIPT = """
import attacks, benchmarks, defenses, leaderboard, torch
import randomized_defense_bench as rdb

network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
images, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
rdb.judge([network], images, labels, rdb.ThreatModel("Linf", 0.1), budget="smoke")
import attacks.own
print([module.mine for module in (attacks, attacks.own, benchmarks, defenses, leaderboard)])
"""


def test_a_project_keeps_its_own_packages_of_the_same_names(tmp_path):
    own = ("attacks/__init__", "attacks/own", "benchmarks", "defenses/__init__", "leaderboard")
    for name in own:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine = 1\n")
    (tmp_path / "score.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "score.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{[1] * len(own)}\n", done.stderr


def test_what_is_installed_inside_a_repository_does_not_record_its_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setattr(
        environment, "__file__", str(tmp_path / "venv" / "suite" / "environment.py")
    )
    assert environment.environment.__wrapped__(torch.device("cpu"))["commit"] == "unknown"


def test_every_name_is_there():
    assert [name for name in rdb.__all__ if not hasattr(rdb, name)] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
def test_an_example_prints_a_verdict(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # One registers an attack.
    monkeypatch.setattr(rdb.ATTACKS, "_entries", dict(rdb.ATTACKS._entries))
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(r"worst case +≤?\d+\.\d \(", capsys.readouterr().out)
