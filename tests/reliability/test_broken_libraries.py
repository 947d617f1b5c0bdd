"""With torchattacks, torchvision and robustbench broken, what needs none of them runs."""

import os
import subprocess
import sys

import pytest
from randomized_defense_bench.leaderboard import records
from workers import ROOT, command


def test_the_default_path_needs_none_of_them(tmp_path):
    for library in ("torchattacks", "torchvision", "robustbench"):
        (tmp_path / f"{library}.py").write_text(f"raise RuntimeError('{library} is broken')")
    wanted = "digits-single and (none or fgsm or clipped) and not adv"
    # What needs torchattacks fails by itself, with its cure; everything else was measured.
    arguments = command(tmp_path, wanted, "--benchmark-disable", "-rfE")
    # In a process that has imported nothing yet.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "300"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    printed = done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, printed + done.stderr
    failed = [line for line in printed.splitlines() if line.startswith("FAILED")]
    assert failed
    said = "torchattacks cannot be imported (torchattacks is broken): pip install --force-reinstall"
    assert all("fgsm" in line and said in line for line in failed)
    assert "During handling" not in printed
    measured = {record.case.attack for record in records.read_all(tmp_path / "results")}
    assert measured == {"none", "mifgsm", "pgd-clipped-margin"}
    assert "| [single]" in (tmp_path / "LEADERBOARD.md").read_text()
