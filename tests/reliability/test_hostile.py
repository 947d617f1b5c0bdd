"""Input that means harm, or does it by mistake."""

import pickle
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.datasets import DATASETS, DatasetError, Raw
from randomized_defense_bench.benchmarks.datasets import load as load_dataset
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.benchmarks.populations import DefenseError
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.benchmarks.store import (
    DamagedError,
    Store,
    StoreError,
    read_card,
    read_tensors,
)
from randomized_defense_bench.defenses import DEFENSES, Population
from randomized_defense_bench.defenses.registry import register_defense
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.pages import pages
from samples import record
from torch import nn
from workers import ROOT, command, options, populations, run

from randomized_defense_bench.files import MOST_BYTES

PACKAGES = ("attacks", "benchmarks", "defenses", "leaderboard", "randomized_defense_bench")
LINF = ThreatModel("Linf", 0.1)


READS_WEIGHTS = 'torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)'


def test_nothing_of_ours_unpickles():
    unsafe = re.compile(
        r"pickle|torch\.(load|save)\b|joblib|marshal|shelve|allow_pickle|\beval\(|\bexec\("
    )
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                # A network's eval() takes no argument; what reads weights alone runs nothing, nor
                # does what writes to tell objects apart.
                for harmless in (".eval()", READS_WEIGHTS, "import pickle", "pickle.Pickler"):
                    line = line.replace(harmless, "")
                # Workers of one run answer as multiprocessing and Ray send anything; no file does.
                if path.parent.name == "engine":
                    line = line.replace("pickle", "")
                found = unsafe.search(line)
                assert not found, f"{path}:{number}: {line}"


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_pickle_that_calls_itself_safetensors_does_nothing(tmp_path):
    target = tmp_path / "exploded"
    for name in ("weights.safetensors", "card.json"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(DamagedError):
        read_tensors(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="."):
        read_card(tmp_path / "card.json")
    assert not target.exists()


def test_a_link_out_of_the_store_is_not_followed(tmp_path):
    session = Session(options(tmp_path / "other"))
    session.prepare("digits", "single")
    (elsewhere,) = populations(tmp_path / "other" / "store")
    mine = Session(options(tmp_path / "mine"))
    (tmp_path / "mine" / "store" / "populations").mkdir(parents=True)
    link = tmp_path / "mine" / "store" / "populations" / elsewhere.name
    link.symlink_to(elsewhere)
    with pytest.raises(StoreError, match="leads out of the store"):
        mine.prepare("digits", "single")


def test_weights_that_are_a_link_are_not_read(tmp_path):
    session = Session(options(tmp_path))
    population = session.prepare("digits", "single").population
    (folder,) = populations(tmp_path / "store")
    (folder / "weights.safetensors").rename(tmp_path / "elsewhere")
    (folder / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="leads out of the store"):
        assert Store(tmp_path / "store").load_into(population, folder) is None
    assert (tmp_path / "elsewhere").exists()


def test_a_card_with_a_gigabyte_in_it_is_not_read(tmp_path):
    path = tmp_path / "card.json"
    with path.open("wb") as file:
        # Sparse: it takes no room.
        file.truncate(2**30)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"1,073,741,824 bytes, more than the {MOST_BYTES:,}"):
        read_card(path)
    assert time.perf_counter() - start < 1


def linear():
    return Population([nn.Sequential(nn.Flatten(), nn.Linear(4, 3))])


GOOD = torch.full((2, 1, 2, 2), 0.5)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (GOOD + 1, LABELS, r"must lie in \[0, 1\].*normalisation"),
        (GOOD - 1, LABELS, r"must lie in \[0, 1\]"),
        (GOOD * torch.nan, LABELS, r"must lie in \[0, 1\]"),
        ((GOOD * 255).to(torch.uint8), LABELS, "must be floats"),
        (GOOD[:0], LABELS[:0], "must be floats of shape"),
        (GOOD[0], LABELS, "must be floats of shape"),
        (GOOD, LABELS + 2, r"labels must lie in \[0, 2\]"),
        (GOOD, LABELS - 1, r"labels must lie in \[0, 2\]"),
        (GOOD, LABELS.float(), "labels must be int64"),
        (GOOD, LABELS[:1], "labels must be int64 of shape"),
    ],
)
def test_bad_images_and_labels_are_named(images, labels, words):
    with pytest.raises(ValueError, match=words):
        evaluate(linear(), images, labels, "fgsm", LINF)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (0, 10, "training split: 0 images"),
        (10, 0, "test split: 0 images"),
        ("one class", 10, "1 classes, expected 10"),
        ("missing labels", 10, "10 images and 9 labels"),
        ("floats", 10, "float64, expected uint8"),
        ("oblong", 10, r"shape \(10, 8, 9\), expected \(N, S, S\)"),
    ],
)
def test_a_dataset_that_is_none_is_named(monkeypatch, train, test, words):
    def split(what):
        count = what if isinstance(what, int) else 10
        images, labels = np.zeros((count, 8, 8), dtype=np.uint8), np.arange(count) % 10
        return {
            "one class": (images, labels * 0),
            "missing labels": (images, labels[1:]),
            "floats": (images.astype(float), labels),
            "oblong": (np.zeros((10, 8, 9), np.uint8), labels),
        }.get(what, (images, labels))

    raw = Raw(*split(train), *split(test), "nowhere")
    entry = replace(DATASETS["digits"], read=lambda root: raw)
    monkeypatch.setitem(DATASETS._entries, "digits", entry)
    with pytest.raises(DatasetError, match=words):
        load_dataset("digits", Path(), None, None)


class WrongShape(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :1]


class Changes(nn.Linear):
    def forward(self, images):
        return super().forward(images.mul_(0.5).flatten(1))


def nothing(population, task):
    pass


class Estimator(nn.Module):
    """Its weights are no part of the network."""

    def __init__(self):
        super().__init__()
        self.estimator = SimpleNamespace(weights=torch.zeros(1024, 10))

    def forward(self, images):
        return images.flatten(1) @ self.estimator.weights


def estimate(population, task):
    for member in population.submodels:
        member.estimator.weights.copy_(torch.rand(1024, 10))


@pytest.mark.parametrize(
    ("train", "build", "words"),
    [
        (lambda _, task: task.images.zero_(), None, "changed the training images or labels"),
        (lambda _, task: task.labels.add_(1), None, "changed the training images or labels"),
        (
            lambda population, _: next(population.parameters()).data.fill_(torch.nan),
            None,
            "no finite logits",
        ),
        (
            estimate,
            lambda data: Estimator(),
            r"answer otherwise once their state_dict\(\) is saved",
        ),
        (nothing, lambda data: WrongShape(), r"must return logits \(N, K\)"),
        (nothing, lambda data: nn.Linear(32, 10), r"must return logits \(N, K\)"),
        (nothing, lambda data: Changes(1024, 10), "changes the images it is given"),
        (
            nothing,
            lambda data: nn.Sequential(nn.Flatten(), nn.Linear(1024, 100)),
            "tell 100 classes apart, expected 10",
        ),
    ],
)
def test_a_defense_that_breaks_its_contract_is_named_and_not_stored(
    monkeypatch, tmp_path, train, build, words
):
    monkeypatch.setattr(DEFENSES, "_entries", dict(DEFENSES._entries))
    register_defense("mine", build=build)(train)
    session = Session(options(tmp_path))
    with pytest.raises(DefenseError, match=f"'mine'.*{words}"):
        session.prepare("digits", "mine")
    assert not list((tmp_path / "store").rglob("card.json"))
    # The data is what it was for the next defense.
    assert session.dataset("digits").unchanged()
    assert session.prepare("digits", "single").trained


HOSTILE_PLUGIN = """
import time
import torch
from randomized_defense_bench.attacks import register_attack
from randomized_defense_bench.defenses import register_defense

@register_defense("raises")
def raises(population, task):
    raise RuntimeError("boom")

@register_defense("hangs")
def hangs(population, task):
    while True:
        time.sleep(0.01)

@register_attack("leaves")
def leaves(model, images, labels, *, threat_model):
    return images + 2 * threat_model.eps

@register_attack("sleeps")
def sleeps(model, images, labels, *, threat_model):
    while True:
        time.sleep(0.01)
"""


def test_the_run_goes_on_with_the_others_and_the_exit_code_tells(tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE_PLUGIN)
    defenses, attacks = "raises or hangs or single", "none or leaves or sleeps"
    wanted = f"digits and ({defenses}) and ({attacks}) and not adv"
    arguments = command(tmp_path, wanted, "--time-limit", "6", "-q", "-rfE")
    printed = run([*arguments, "-p", "hostile"], tmp_path, code=1)
    assert "boom" in printed
    # Named by the case that waited for it first; it is not waited for again.
    assert "training or loading for test_mra[digits-hangs-none] took longer" in printed
    assert "test_mra[digits-single-sleeps] took longer than 6 s; --time-limit" in printed
    assert "attack 'leaves' left the" in printed
    measured = records.read_all(tmp_path / "results")
    assert {(r.case.defense, r.case.attack) for r in measured} == {("single", "none")}
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert "Not attacked yet at a ranked radius: single." in page


def test_markup_that_came_in_with_a_record_stays_text():
    evil = "<script>alert(1)</script> [x](javascript:y) | `z` | ![i](http://i) *b* _c_ \n# H"
    marked = [
        replace(
            record(attack=attack, source=evil, defense_parameters={evil: evil}),
            environment={"device": evil, "torch": evil, "commit": evil},
        )
        for attack in ("none", "fgsm")
    ]
    page = "\n".join(pages(Board(marked)).values())
    for raw in ("<script", "](javascript", "![i]", "*b*", "_c_", "`z`", "\n# H"):
        assert raw not in page, raw
