"""With torchattacks, torchvision and robustbench broken, what needs none of them runs."""

import os
import subprocess
import sys
from pathlib import Path

from leaderboard import records

ROOT = Path(__file__).parents[2]


def test_the_default_path_needs_none_of_them(tmp_path):
    for library in ("torchattacks", "torchvision", "robustbench"):
        (tmp_path / f"{library}.py").write_text(f"raise RuntimeError('{library} is broken')")
    command = [sys.executable, "-m", "pytest", "benchmarks/", "--budget", "smoke"]
    command += ["-k", "digits-single and (none or fgsm or clipped) and not adv"]
    command += [f"--results={tmp_path / 'results'}", f"--store={tmp_path / 'store'}"]
    command += ["--benchmark-disable", "-p", "no:cacheprovider", "-rfE"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "COLUMNS": "300"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    # What needs torchattacks fails by itself, with its cure; everything else was measured.
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert failed
    said = "torchattacks cannot be imported (torchattacks is broken): pip install --force-reinstall"
    assert all("fgsm" in line and said in line for line in failed)
    measured = {record.case.attack for record in records.read_all(tmp_path / "results")}
    assert measured == {"none", "pgd-clipped-margin"}
    assert "| single " in (tmp_path / "LEADERBOARD.md").read_text()
