import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import arrays
from samples import CELL, record

from leaderboard import records
from leaderboard.files import write_sealed
from leaderboard.records import RecordError


def same(a, b):
    return np.array_equal(a.correct, b.correct) and all(
        getattr(a, f.name) == getattr(b, f.name) for f in fields(a) if f.name != "correct"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(correct=arrays(bool, (2, 20)))
def test_what_is_written_is_read_back(tmp_path, correct):
    original = replace(record(), correct=correct)
    path = records.write(original, tmp_path)
    assert same(records.read(path), original)


def test_the_file_shows_people_the_score_its_interval_and_each_submodel(tmp_path):
    data = json.loads(records.write(record(10), tmp_path).read_text())
    assert data["mra"] == 19 / 40
    assert data["submodel_accuracies"] == [0.5, 0.45]
    assert data["interval"][0] < data["mra"] < data["interval"][1]


def test_writing_again_replaces_the_file_and_leaves_no_other(tmp_path):
    records.write(record(3), tmp_path)
    path = records.write(record(4), tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    assert records.read(path).correct.sum() == 7


def test_every_part_of_a_cell_changes_its_key():
    changed = {
        "dataset": "digits",
        "source": "elsewhere",
        "sha256": "ff",
        "images": 21,
        "test_images": 21,
        "classes": 11,
        "defense": "clm",
        "defense_version": 2,
        "defense_parameters": {"recipe": {"epochs": 4}},
        "submodels": 3,
        "attack": "fgsm",
        "attack_version": 2,
        "attack_parameters": {"steps": 41},
        "norm": "L2",
        "eps": 0.31,
        "images_per_draw": 100,
        "batch_size": 100,
        "protocol": "average",
        "budget": "paper",
        "seed": 1,
    }
    assert changed.keys() == {f.name for f in fields(CELL)}
    keys = {replace(CELL, **{name: value}).key for name, value in changed.items()}
    assert len(keys | {CELL.key}) == len(changed) + 1


def test_the_key_is_readable():
    assert CELL.key.startswith("mnist-ulm-pgd-linf-0.3-quick-s0-")


def spoil(path, **changes):
    """Change a record as somebody would who seals it again."""
    content = {**json.loads(path.read_text()), **changes}
    content.pop("seal")
    write_sealed(path, content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 99}, "schema version 99, this version reads 1"),
        ({"mra": 0.99}, "mra is 0.99, its own data give 0.475"),
        ({"correct": {"shape": [2, 21], "data": ""}}, r"shape \[2, 21\], the cell says \(2, 20\)"),
        ({"correct": {"shape": [2, 20], "data": "!!!"}}, "not a usable record"),
        ({"correct": {"shape": [2, 20], "data": "eJxjAAAAAQAB"}}, "does not hold 40 answers"),
        ({"attack_seconds": -1}, "attack_seconds is -1"),
        ({"cell": {}}, "missing"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused_by_name(tmp_path, changes, words):
    path = records.write(record(), tmp_path)
    spoil(path, **changes)
    with pytest.raises(RecordError, match=words) as caught:
        records.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema_version": 1}'])
def test_what_is_no_record_is_refused_by_name(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=r"x\.json"):
        records.read(path)


def test_a_record_under_another_cell_s_name_is_refused(tmp_path):
    path = records.write(record(), tmp_path)
    path.rename(tmp_path / "other.json")
    with pytest.raises(RecordError, match="it holds the cell mnist-ulm-pgd"):
        records.read(tmp_path / "other.json")


def test_every_unusable_record_is_named(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RecordError, match=r"(?s)a\.json.*b\.json"):
        records.read_all(tmp_path)


def test_what_it_does_not_know_is_kept(tmp_path):
    path = records.write(replace(record(), extra={"new": [1, {"a": None}]}), tmp_path)
    assert records.read(path).extra == {"new": [1, {"a": None}]}
