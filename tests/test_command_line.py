"""The suite as its users run it."""

import json
import re
import sys
from pathlib import Path

import pytest
from workers import command, run

from randomized_defense_bench.files import folder_named

ROOT = Path(__file__).parents[1]
# A proxy that refuses: downloads fail at once, wherever the tests run.
OFFLINE = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)


def places(folder):
    """The options that keep a run inside one folder."""
    return [f"--{name}={folder / name}" for name in ("store", "results", "data-root")]


def run_here(*arguments, folder):
    """`pytest benchmarks/ ...` in this process, with store, data and results under `folder`."""
    return pytest.main(["benchmarks/", f"--rootdir={ROOT}", *places(folder), *arguments])


def test_first_run_trains_and_measures_second_re_uses_and_rerun_measures(tmp_path, capfd):
    wanted = "digits and single and not adv"
    arguments = ("-k", wanted, "--budget", "smoke")
    timed = ["--benchmark-json", str(tmp_path / "timings.json")]
    printed = run(command(tmp_path, wanted, f"--data-root={tmp_path / 'data-root'}", *timed))
    assert "populations trained: 1; cells measured: 35, re-used: 6" in printed
    assert "budget smoke, device cpu" in printed
    # The table of timings comes before what a reader looks for at the end.
    assert printed.index("Legend:") < printed.index("populations trained")
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert "digits, smoke budget" in page
    assert "| [single] " in page
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "figures").iterdir())
    assert names == ["curves", "gallery"]
    assert (tmp_path / "defenses" / "single.md").exists()
    assert (tmp_path / "PAPER.md").exists()

    timings = json.loads((tmp_path / "timings.json").read_text())["benchmarks"]
    info = {t["param"]: t["extra_info"] for t in timings if t["name"].startswith("test_mra")}
    record = next((tmp_path / "results").glob("digits-single-pgd-linf-0.25-*.json"))
    accuracy = json.loads(record.read_text())["mra"]
    assert info["digits-single-pgd"]["accuracy"] == {"pgd 0.25": accuracy}

    before = {p.name: p.read_bytes() for p in (tmp_path / "results").iterdir()}
    run_here(*arguments, folder=tmp_path)
    assert "populations trained: 0; cells measured: 0, re-used: 41" in capfd.readouterr().out
    assert {p.name: p.read_bytes() for p in (tmp_path / "results").iterdir()} == before

    run_here(*arguments, "--rerun", folder=tmp_path)
    assert "populations trained: 0; cells measured: 35, re-used: 6" in capfd.readouterr().out
    after = {p.name: json.loads(p.read_text()) for p in (tmp_path / "results").iterdir()}
    assert after.keys() == before.keys()
    for name, content in after.items():
        assert content["correct"] == json.loads(before[name])["correct"], name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "quik"], ["'quik'", "smoke", "quick", "paper"]),
        (["--device", "tpu"], ["'tpu'", "auto", "cpu", "cuda"]),
        (["--eps", "-0.1"], ["'-0.1'", "8/255"]),
        (["--eps", "lots"], ["'lots'", "8/255"]),
        (["--submodels", "0"], ["'0'", ">= 1"]),
        (["-k", "digits and clmm"], ["unknown 'clmm'", "'clm'", "ulm-adv"]),
        (["-k", "minst"], ["unknown 'minst'", "'mnist'"]),
        (["-k", "autoatack"], ["'autoattack'"]),
    ],
)
def test_a_wrong_word_gets_one_line_and_writes_nothing(arguments, words, tmp_path, capfd):
    code = run_here(*arguments, folder=tmp_path)
    assert code == pytest.ExitCode.USAGE_ERROR
    printed = "".join(capfd.readouterr())
    (line,) = [
        line for line in printed.splitlines() if words[0] in line and "error:" in line.lower()
    ]
    for word in words:
        assert word in line
    assert "Traceback" not in printed
    assert [*tmp_path.iterdir()] == []


def test_data_that_is_missing_fails_with_one_clear_message(tmp_path, capfd, monkeypatch):
    for name, proxy in OFFLINE.items():
        monkeypatch.setenv(name, proxy)
    code = run_here("-k", "cifar and ulm and none", "--budget", "smoke", folder=tmp_path)
    assert code == pytest.ExitCode.TESTS_FAILED
    printed = capfd.readouterr().out
    assert "Traceback" not in printed
    (line,) = [li for li in printed.splitlines() if "ERROR: nothing was measured" in li]
    assert "cifar10 is not under" in line
    assert "--data-root" in line
    assert not (tmp_path / "LEADERBOARD.md").exists()


ATTACKS = "digits and single and (fgsm or clipped) and (mra or sweep) and not adv"
SINGLE = ("-k", ATTACKS, "--budget", "smoke")


def test_a_folder_in_another_clone_is_no_test_path(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "conftest.py").write_text("raise AssertionError('of another clone')")
    results = tmp_path / "leaderboard" / "results"
    results.mkdir(parents=True)
    arguments = [word for option in places(tmp_path) for word in option.split("=")]
    arguments += ["--results", str(results), "--collect-only"]
    assert pytest.main(["benchmarks/", *SINGLE, *arguments]) == 0


@pytest.mark.parametrize(
    ("expression", "run"),
    [("digits", {"ulm"}), ("digits and rpf", {"rpf"}), ("digits and field", {"rpf", "kwta"})],
)
def test_other_papers_defenses_run_when_they_are_asked_for(expression, run, tmp_path, capfd):
    assert run_here("--collect-only", "-q", "-k", expression, folder=tmp_path) == 0
    listed = capfd.readouterr().out
    assert {name for name in ("ulm", "rpf", "kwta") if f"[digits-{name}-" in listed} == run


def test_a_folder_is_named_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert folder_named("~/x") == tmp_path / "home" / "x"
    assert folder_named(".") == tmp_path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder in which runs of the same cases measure only once."""
    return tmp_path_factory.mktemp("measured")


def fail(*arguments, **options):
    raise RuntimeError("broken\nin many lines")


@pytest.mark.parametrize(
    "name",
    [
        "matplotlib.figure.Figure.savefig",
        "tabulate.tabulate",
        "jinja2.Template.render",
    ],
)
def test_a_library_that_fails_at_the_page_leaves_the_summary(name, measured, monkeypatch, capfd):
    monkeypatch.setattr(name, fail)
    assert run_here(*SINGLE, folder=measured) == pytest.ExitCode.TESTS_FAILED
    printed = capfd.readouterr().out
    assert "cells measured: " in printed
    (line,) = [line for line in printed.splitlines() if "broken" in line]
    assert line.startswith(
        "ERROR: the leaderboard was not rebuilt (RuntimeError: broken); python -m"
    )
    assert re.search(r"^=+ 5 passed, .* in ", printed, re.M)


def test_a_library_that_is_gone_leaves_the_summary(measured, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "randomized_defense_bench.leaderboard.publish", None)
    assert run_here(*SINGLE, folder=measured) == pytest.ExitCode.TESTS_FAILED
    printed = capfd.readouterr().out
    assert "the leaderboard was not rebuilt (ModuleNotFoundError: import of" in printed
    assert re.search(r"^=+ 5 passed, .* in ", printed, re.M)


def test_the_page_is_made_whatever_pytest_takes_for_its_root(measured, capfd):
    assert run_here(*SINGLE, f"--rootdir={ROOT.parent}", folder=measured) == 0
    assert f"leaderboard: {measured / 'LEADERBOARD.md'}" in capfd.readouterr().out
