"""What the README and the documents show works, and is short enough to be read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from randomized_defense_bench.benchmarks.__main__ import main
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.leaderboard import columns, records
from randomized_defense_bench.leaderboard.board import Board
from safetensors.torch import save_file
from torch import nn

import randomized_defense_bench

ROOT = Path(__file__).parents[1]
# Where the suite is imported from: the repository, or an environment that it is installed in.
HOME = Path(randomized_defense_bench.__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BOARD = ROOT / "leaderboard"
FRONT = ("leaderboard/LEADERBOARD.md", "leaderboard/PAPER.md")
# Those that are a file each, by package and name; an import line is `__init__`.
FILES = {
    tuple(match[1].split("/")): block
    for block in BLOCKS
    if (match := re.match(r"# ([\w/]+)\.py\n", block))
}
PLUGINS = {path: block for path, block in FILES.items() if path[-1] != "__init__"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.startswith("# ")])
def test_examples_score_a_list_of_modules(block, capsys):
    torch.manual_seed(0)
    names = {
        "modules": [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(3)],
        "images": torch.rand(8, 1, 8, 8),
        "labels": torch.randint(10, (8,)),
    }
    exec(block.replace('"quick"', '"smoke"'), names)
    assert re.search(r"worst case|Score\(value=", capsys.readouterr().out)


def test_the_command_judges_networks_from_files(tmp_path, monkeypatch, capsys):
    (command,) = re.findall(
        r"^python -m randomized_defense_bench.benchmarks (judge .*)$", TEXT, re.M
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_module.py").write_text(f"from {lenet5.__module__} import lenet5 as build")
    for name in "ab":
        save_file(lenet5().state_dict(), f"{name}.safetensors")
    small = ("--budget=smoke", "--images=2")
    assert main([*command.replace("cifar10", "digits").split(), *small]) == 0
    assert "worst case" in capsys.readouterr().out
    assert Path("mine/LEADERBOARD.md").exists()


@pytest.fixture
def environment(tmp_path):
    """An installed distribution with every file of the README, and the weights that one loads."""
    groups = {}
    for number, (path, block) in enumerate(PLUGINS.items()):
        (tmp_path / f"shown_{path[-1]}.py").write_text(block)
        group = groups.setdefault(path[-2], [])
        group.append(f"plugin{number} = shown_{path[-1]}")
    about = tmp_path / "shown-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shown\nVersion: 1.0\n")
    entries = [
        line
        for group, lines in groups.items()
        for line in (f"[randomized_defense_bench.{group}]", *lines)
    ]
    (about / "entry_points.txt").write_text("\n".join(entries))
    for k in range(2):
        torch.manual_seed(k)
        save_file(lenet5().state_dict(), tmp_path / f"mine-{k}.safetensors")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{HOME}"}


def test_what_the_readme_adds_is_measured_in_a_package_of_one_s_own(environment, tmp_path):
    def run(norm):
        command = [sys.executable, "-P", "-m", "pytest", "benchmarks/", "--budget=smoke", "-q"]
        command += [
            "-k",
            "test_mra and digits and (contrast or mine) and (none or mifgsm or shade)",
        ]
        command += [f"--{name}={tmp_path / name}" for name in ("store", "results", "data-root")]
        command += [f"--norm={norm}", "-p", "no:cacheprovider", "--benchmark-disable"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def measured():
        found = records.read_all(tmp_path / "results")
        return {(r.case.defense, r.case.attack, r.case.norm) for r in found}

    assert {path[-1] for path in PLUGINS} == {"constant", "contrast", "mine", "shade", "svhn"}
    run("Linf")
    defenses = ("contrast", "mine")
    linf = {(d, a, "Linf") for d in defenses for a in ("none", "mifgsm")}
    assert measured() == linf
    run("L2")
    assert measured() == linf | {(d, a, "L2") for d in defenses for a in ("none", "shade")}
    found = {r.case.defense: r.case for r in records.read_all(tmp_path / "results")}
    assert (found["contrast"].submodels, found["contrast"].draws) == (1, 4)
    assert (found["mine"].submodels, found["mine"].draws) == (2, 1)
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert "| [contrast]" in page
    assert "| [mine]" in page


@pytest.mark.parametrize("path", [path for path in FILES if path[-1] == "__init__"])
def test_an_import_line_is_like_those_that_are_there(path):
    line = FILES[path].splitlines()[1]
    there = ROOT.joinpath(*path).with_suffix(".py").read_text()
    like = re.compile(r"^from \. import (\w+) as \1$", re.M)
    assert like.search(line)
    assert like.search(there)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(--[a-z-]+)", TEXT))))
def test_options_the_documents_name_exist(name):
    sources = ("benchmarks/options.py", "benchmarks/judging.py")
    text = "".join((ROOT / source).read_text() for source in sources)
    known = {
        "--check",
        "--help",
        "--into",
        "--rootdir",
        "--site",
        *re.findall(r'"(--[a-z-]+)"', text),
    }
    assert name in known


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *BOARD.glob("*.md"), *BOARD.glob("defenses/*.md")], ids=lambda p: p.name
)
def test_what_a_page_links_exists(path):
    links = re.findall(r"(?:\]\(|^\[[\w-]+\]: )(?!http)([^)#\s]+)", path.read_text(), re.M)
    assert [link for link in links if not (path.parent / link).exists()] == []


def words(name):
    """How many words a reader meets: no rules of tables, comments, and targets of links."""
    text = re.sub(
        r"<!--.*?-->|\]\([^)]*\)|^\[.*\]: .*$", " ", (ROOT / name).read_text(), flags=re.M
    )
    return len([word for word in text.split() if re.search(r"\w", word)])


def test_the_front_pages_are_read_in_minutes():
    pages = {name: words(name) for name in ("README.md", *FRONT)}
    assert pages["README.md"] <= 1200, pages
    assert sum(pages.values()) <= 3000, pages


def test_a_row_of_the_ranking_fits_a_screen():
    lines = (BOARD / "LEADERBOARD.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows
    assert [row for row in rows if len(row) > 100] == []


def test_a_column_is_one_object():
    (block,) = [block for block in BLOCKS if "Column(" in block]
    column = eval(block.partition("\n")[2].strip(), vars(columns))
    paths = (ROOT / "leaderboard" / "results").glob("digits-single-*-quick-s0-*.json")
    (entry, *_) = Board([records.read(path) for path in paths]).entries
    assert column.cell(entry) == "1"
