"""The same page everywhere: containers, notebooks, Windows, a user's own settings."""

import io
import os
import pwd
import runpy
import subprocess
import sys
import tempfile

import pytest
import torch
from randomized_defense_bench.benchmarks.environment import environment
from randomized_defense_bench.benchmarks.paths import cache_folder
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.publish import publish
from samples import record, row
from workers import ROOT

# Publishes, and checks what was published.
PROGRAM = """
import sys
from randomized_defense_bench.leaderboard.__main__ import main
where = ["--results", sys.argv[1]]
sys.exit(main(where) or main([*where, "--check"]))
"""
ENVIRONMENTS = {
    "notebook": {
        "MPLBACKEND": "inline-of-another-environment",
        "COLUMNS": "20",
        "NO_COLOR": "1",
    },
    "own matplotlibrc": {"MATPLOTLIBRC": "{folder}/matplotlibrc", "MPLCONFIGDIR": "{folder}"},
    "no UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "elsewhere": {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LANGUAGE": "de", "HOME": "/dev/null"},
}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_page_is_the_same_to_the_last_byte(tmp_path, name):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\naxes.grid: False\n")
    here, there = (tmp_path / folder / "results" for folder in ("here", "there"))
    cell = {"headline": False, "source": "größere Ziffern"}
    swept = [record(9, attack=a, eps=eps, **cell) for a in ("pgd", "arc") for eps in (0.1, 0.2)]
    for one in [*row("ulm", 3, source="größere Ziffern"), *swept]:
        for results in (here, there):
            records.write(one, results)
    publish(here)
    changes = {key: value.format(folder=tmp_path) for key, value in ENVIRONMENTS[name].items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(there)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **changes},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = files(here.parent)
    assert any(name.endswith(".svg") for name in expected)
    assert files(there.parent) == expected


def no_home(monkeypatch, home):
    """A user id without an entry, as with `docker run -u 12345`."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)


def home_of_another(monkeypatch, home):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != home and access(path, mode))


def home_that_is_a_file(monkeypatch, home):
    home.rmdir()
    home.touch()


@pytest.mark.parametrize("spoil", [no_home, home_of_another, home_that_is_a_file])
def test_without_a_home_the_cache_is_temporary(tmp_path, monkeypatch, spoil):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache_folder() == home / ".cache" / "randomized-defense-bench"
    spoil(monkeypatch, home)
    assert cache_folder() == tmp_path / "randomized-defense-bench"


def test_a_cache_that_is_there_is_used_though_read_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "randomized-defense-bench").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache_folder() == tmp_path / "randomized-defense-bench"


def test_the_commit_of_a_record_is_this_project_s(tmp_path, monkeypatch):
    """Git tells a hook by GIT_DIR which repository it is of."""
    here = environment.__wrapped__(torch.device("cpu"))["commit"]
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert environment.__wrapped__(torch.device("cpu"))["commit"] == here


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("leaderboard", "--results {}"), ("benchmarks", "store --store {} ls")],
)
def test_a_path_is_printed_whatever_the_terminal_can_show(tmp_path, monkeypatch, module, arguments):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", terminal)
    module = f"randomized_defense_bench.{module}"
    monkeypatch.delitem(sys.modules, f"{module}.__main__", raising=False)
    arguments = [argument.format(tmp_path / "цифры") for argument in arguments.split()]
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    terminal.seek(0)
    assert r"\u0446\u0438\u0444" in terminal.read()
