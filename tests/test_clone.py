"""A run in a fresh clone leaves it clean, and says what it confirms."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASES = "digits and single and test_mra and (none or arc) and not adv"


def git(clone, *arguments):
    who = ("-c", "user.name=A User", "-c", "user.email=user@example.org")
    return subprocess.check_output(["git", *who, *arguments], cwd=clone, text=True)


@pytest.fixture
def clone(tmp_path):
    """The repository's files as they are now, in a repository of their own, without records."""
    clone = tmp_path / "clone"
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        source, path = ROOT / name, clone / name
        if source.is_file() and path.parent.name not in ("results", "evidence", "grids", "studies"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes())
    git(clone, "init", "--quiet")
    return clone


def run(clone, *options, store):
    """The suite in a clone, from a terminal; what it printed."""
    command = [sys.executable, "-m", "pytest", "benchmarks/", "-v", "-k", CASES]
    command += ["--budget=smoke", f"--store={clone.parent / store}", *options]
    here = {**os.environ, "PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_leaves_a_clone_clean_and_says_what_it_confirms(clone):
    folder = clone / "leaderboard"
    assert "confirm" not in run(clone, "--publish", store="first")
    assert not (folder / "local").exists()
    assert "| [single] " in (clone / "README.md").read_text()
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "Records")

    printed = run(clone, store="second")
    assert "2 of 2 cells confirm the committed records\n" in printed
    assert printed.count(" CONFIRMED ") == 2
    assert "| [single] " in (folder / "local" / "LEADERBOARD.md").read_text()
    page = (folder / "local" / "defenses" / "single.md").read_text()
    assert re.search(r"\n\| arc .*, confirmed +\|", page)
    assert "confirmed" not in (folder / "defenses" / "single.md").read_text().lower()
    assert git(clone, "status", "--porcelain") == ""
