"""What the README shows works."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize("name", re.findall(r"`(--[a-z-]+)`", README))
def test_options_the_readme_names_exist(name):
    known = (ROOT / "conftest.py").read_text() + "--benchmark-json --benchmark-disable --check"
    assert name in known


def test_files_the_readme_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
