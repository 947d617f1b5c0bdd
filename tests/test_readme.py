"""What the README shows works."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks import ThreatModel
from benchmarks.datasets import experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_scores_a_list_of_modules(capsys):
    (block,) = re.findall(r"```python\n(from attacks import ThreatModel\n.*?)```", README, re.S)
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(3)]
    names = {
        "modules": modules,
        "images": torch.rand(8, 1, 8, 8),
        "labels": torch.randint(10, (8,)),
    }
    exec(block, names)
    printed = capsys.readouterr().out
    assert "Score(value=" in printed
    assert "(3, 8)" in printed


def test_the_verdict_example_judges_a_list_of_modules(capsys, monkeypatch):
    (block,) = re.findall(
        r"```python\n(from benchmarks.verdict import judge\n.*?)```", README, re.S
    )
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(16, 4)) for _ in range(2)]
    names = {
        "modules": modules,
        "images": torch.rand(4, 1, 4, 4),
        "labels": torch.randint(4, (4,)),
        "ThreatModel": ThreatModel,
    }
    small = experiment("smoke", "mnist").attacks
    monkeypatch.setattr("benchmarks.verdict.attack_parameters", lambda name: small.get(name, {}))
    exec(block, names)
    assert "claimed: Score(value=" in capsys.readouterr().out


@pytest.mark.parametrize("name", re.findall(r"`(--[a-z-]+)`", README))
def test_options_the_readme_names_exist(name):
    known = {"--check", *re.findall(r'"(--[a-z-]+)"', (ROOT / "conftest.py").read_text())}
    assert name in known


def test_files_the_readme_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
