"""Imports run one way: attacks <- defenses <- benchmarks -> leaderboard."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"attacks", "defenses", "benchmarks", "leaderboard"}
MAY_IMPORT = {
    "attacks": {"attacks"},
    "defenses": {"attacks", "defenses"},
    "benchmarks": OURS,
    "leaderboard": {"leaderboard"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_run_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = OURS - MAY_IMPORT[package]
        if package == "leaderboard":
            forbidden = forbidden | {"torch", "torchvision", "torchattacks"}
        assert not forbidden & set(imported(path)), path


def test_no_case_file_is_named_after_a_dataset_or_an_attack():
    """`-k` matches file names too."""
    from attacks import ATTACKS
    from benchmarks.datasets import DATASETS
    from defenses import DEFENSES

    names = {"adv", "cifar", *DATASETS, *DEFENSES, *ATTACKS} - {"none"}
    for path in (ROOT / "benchmarks").glob("test_*.py"):
        functions = [
            n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)
        ]
        for word in (path.stem, *functions):
            assert not [name for name in names if name in word], word
