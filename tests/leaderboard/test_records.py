import json
from dataclasses import fields, replace

import pytest
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.records import RecordError
from samples import CELL, record, same, spoil


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        ({}, (6, 20)),
        ({"protocol": "alone"}, (6, 20)),
        ({"protocol": "known"}, (8, 20)),
        ({"protocol": "average"}, (3, 20)),
        ({"protocol": "transfer"}, (2, 6, 20)),
    ],
)
def test_a_record_of_random_members_holds_every_draw(tmp_path, case, shape):
    original = record(draws=3, probabilities=(0.25, 0.75), images_per_draw=2, **case)
    assert original.correct.shape == shape
    assert same(records.read(records.write(original, tmp_path)), original)


def test_scores_take_the_law_only_where_the_deployed_defense_answers():
    random = {"draws": 3, "probabilities": (0.25, 0.75), "images_per_draw": 2}
    drawn, alone = record(**random).answers, record(protocol="alone", **random).answers
    assert (drawn.probabilities, drawn.draws, drawn.block) == ((0.25, 0.75), 3, 2)
    assert (alone.probabilities, alone.draws, alone.block) == (None, 3, 2)
    assert record(10, protocol="transfer").score.value == 19 / 40


def test_the_file_shows_people_the_score_and_its_interval(tmp_path):
    data = json.loads(records.write(record(10), tmp_path).read_text())
    assert data["mra"] == 19 / 40
    assert data["interval"][0] < data["mra"] < data["interval"][1]


def test_writing_again_replaces_the_file_and_leaves_no_other(tmp_path):
    records.write(record(3), tmp_path)
    path = records.write(record(4), tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    assert records.read(path).correct.sum() == 7


def test_every_part_of_a_case_changes_its_key():
    def another(value):
        if value is None:
            return (0.25, 0.75)
        return value + 1 if isinstance(value, int | float) else f"not {value}"

    parts = {**vars(CELL), "images_per_draw": 1}
    keys = {replace(CELL, **{name: another(value)}).key for name, value in parts.items()}
    assert len(keys | {CELL.key}) == len(fields(CELL)) + 1


def test_the_key_is_readable():
    assert CELL.key.startswith("mnist-ulm-pgd-linf-0.3-quick-s0-")


def test_changed_parts_are_refused_by_name(tmp_path):
    """What somebody might write by hand."""
    path = records.write(record(), tmp_path)
    whole = json.loads(path.read_text())
    packed, case = whole["correct"], whole["case"]
    for changes, words in (
        ({"schema_version": 99}, "schema version 99, this version reads 2"),
        ({"mra": 0.99}, "mra is 0.99, its own data give 0.475"),
        ({"correct": {**packed, "shape": [4, 10]}}, r"shape \(4, 10\), the case says \(2, 20\)"),
        ({"correct": {**packed, "data": "!!!"}}, "not usable"),
        ({"correct": {**packed, "data": "eJxjAAAAAQAB"}}, "does not hold 40 elements"),
        ({"attack_seconds": -1}, r">= 0.0 - at `\$.attack_seconds`"),
        ({"unperturbed": 1.5}, r"<= 1.0 - at `\$.unperturbed`"),
        ({"selecting": [0.5] * 20}, "selecting has one share an image where members are random"),
        ({"case": {}}, "missing"),
        ({"case": {**case, "surprise": 1}}, "a case has no surprise"),
        ({"case": {**case, "norm": "<img src=x>"}}, "Invalid enum value '<img src=x>'"),
        ({"case": {**case, "dataset": "../x"}}, r"`\$.case.dataset`"),
        ({"case": {**case, "sha256": "<script>" + "0" * 56}}, r"`\$.case.sha256`"),
        ({"case": {**case, "protocol": "other"}}, r"`\$.case.protocol`"),
        ({"case": {**case, "probabilities": [0.5, 0.6]}}, "expected 2 of sum 1"),
        ({"case": {**case, "probabilities": [1.0]}}, "expected 2 of sum 1"),
        ({"facts": {**whole["facts"], "attack_kind": "mine"}}, "Invalid enum value 'mine'"),
    ):
        spoil(path, **{**whole, **changes})
        with pytest.raises(RecordError, match=words) as caught:
            records.read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *(("", ""), ("{", ""), ("[]", ""), ("null", ""), ('{"schema_version": 1}', "")),
        ('{"mra": NaN}', "JSON is malformed"),
        ('{"mra": -Infinity}', "JSON is malformed"),
        ('{"mra": 0.5, "seal": "0"}', "seal is broken"),
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=rf"x\.json.*{words}"):
        records.read(path)


def test_a_record_under_another_case_s_name_is_refused(tmp_path):
    path = records.write(record(), tmp_path)
    path.rename(tmp_path / "other.json")
    with pytest.raises(RecordError, match="it holds mnist-ulm-pgd"):
        records.read(tmp_path / "other.json")


def test_every_unusable_record_is_named(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RecordError, match=r"(?s)a\.json.*b\.json"):
        records.read_all(tmp_path)
