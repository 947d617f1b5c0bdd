"""Imports run one way: attacks <- defenses <- benchmarks -> leaderboard."""

import ast
import re
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "randomized_defense_bench"
OURS = {"attacks", "defenses", "benchmarks", "leaderboard"}
MAY_IMPORT = {
    "attacks": {"attacks"},
    "defenses": {"attacks", "defenses"},
    "benchmarks": OURS,
    "leaderboard": {"leaderboard"},
}


def modules(path):
    """The full names of all that a file imports."""
    package = ".".join((NAME, *path.relative_to(ROOT).parent.parts))
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{module}.{alias.name}" for alias in node.names]
        yield from names


def imported(path):
    """The packages it imports: those of the suite by their folders, others by their names."""
    for first, *rest in (name.split(".") for name in modules(path)):
        assert first not in OURS, f"{path} imports {first}, which may be anybody's"
        yield rest[0] if first == NAME and rest else first


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_run_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = OURS - MAY_IMPORT[package]
        if package == "leaderboard":
            forbidden = forbidden | {"torch", "torchvision", "torchattacks"}
        assert not forbidden & set(imported(path)), path


def test_nothing_imports_the_wing_of_one_paper():
    files = [path for package in OURS for path in (ROOT / package).rglob("*.py")]
    for path in (ROOT / "conftest.py", *files):
        if path.parent.name != "paper":
            assert not [name for name in modules(path) if ".paper" in name], path


def test_the_board_stays_small():
    """But for the wing of the paper."""
    files = [p for p in (ROOT / "leaderboard").rglob("*.py") if p.parent.name != "paper"]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 2200


def test_templates_speak_english():
    for path in (ROOT / "leaderboard").rglob("*.j2"):
        prose = path.read_text().lower()
        assert not re.search(r"what is left of|\bthat of\b|\bours\b", prose), path


def test_no_case_file_is_named_after_a_dataset_or_an_attack():
    """`-k` matches file names too."""
    from randomized_defense_bench.attacks import ATTACKS
    from randomized_defense_bench.benchmarks.datasets import DATASETS
    from randomized_defense_bench.defenses import DEFENSES

    names = {"adv", "cifar", *DATASETS, *DEFENSES, *ATTACKS} - {"none"}
    for path in (ROOT / "benchmarks").glob("test_*.py"):
        defined = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
        tests = [n.name for n in defined if n.name.startswith("test")]
        for word in (path.stem, *tests):
            assert not [name for name in names if name in word], word


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_module_of_the_repository_has_two_names_and_is_imported_once(order):
    lines = ("from leaderboard.records import Record as short", f"from {NAME} import leaderboard")
    lines = [lines[place] for place in order]
    lines += [f"from {NAME}.leaderboard.records import Record", "assert short is Record"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
