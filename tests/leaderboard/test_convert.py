"""Records of version 1, as they were written before members could be random."""

import base64
import json
import zlib
from dataclasses import asdict, replace

import numpy as np
import pytest
from samples import CELL

from leaderboard import records
from leaderboard.__main__ import main
from leaderboard.convert import convert
from leaderboard.files import write_sealed
from leaderboard.records import RecordError

CORRECT = np.random.default_rng(0).random((2, 20)) < 0.5


def version_1(**cell):
    """What a file of version 1 held: asked for steps of 0.01, which cannot cross 0.8 in 40."""
    parameters = {"steps": 40, "step_size": 0.01}
    case = replace(CELL, **{"eps": 0.8, "attack_parameters": parameters, **cell})
    packed = base64.b64encode(zlib.compress(np.packbits(CORRECT).tobytes(), 9)).decode()
    older = asdict(case)
    for later in ("draws", "probabilities"):
        del older[later]
    return {
        "schema_version": 1,
        "cell": older,
        "mra": float(CORRECT.mean()),
        "interval": [0.1, 0.9],
        "submodel_accuracies": CORRECT.mean(axis=1).tolist(),
        "correct": {"shape": [2, 20], "encoding": "base64(zlib(numpy.packbits))", "data": packed},
        "population_sha256": "f" * 64,
        "training_seconds": 12.0,
        "attack_seconds": 1.5,
        "unperturbed": 0.0,
        "largest_distance": 0.8,
        "zero_gradients": None,
        "repeatable": True,
        "headline": True,
        "measured_at": "2026-01-02T03:04:05+00:00",
        "environment": {"device": "cpu"},
    }


@pytest.fixture
def old(tmp_path):
    write_sealed(tmp_path / "mnist-ulm-pgd-old.json", version_1())
    return tmp_path


def test_answers_stay_and_the_file_is_named_by_its_case(old):
    assert convert(old) == 1
    (path,) = old.iterdir()
    found = records.read(path)
    assert path.stem == found.case.key
    assert np.array_equal(found.correct, CORRECT)
    assert (found.case.draws, found.case.probabilities, found.selecting) == (1, None, None)
    assert (found.facts.attack_kind, found.facts.random) == ("authors", "which network answers")
    assert (found.repeatable, found.training_seconds, found.extra) == (True, 12.0, {})


@pytest.mark.parametrize(
    ("eps", "asked", "ran"),
    [
        # What reaches eps in so many steps, a quarter of eps, and what was asked for.
        *((0.8, 0.01, 0.02), (0.02, 0.01, 0.005), (0.2, 0.01, 0.01))
    ],
)
def test_the_step_size_is_the_one_that_ran(tmp_path, eps, asked, ran):
    parameters = {"steps": 40, "step_size": asked}
    write_sealed(tmp_path / "x.json", version_1(eps=eps, attack_parameters=parameters))
    convert(tmp_path)
    (found,) = records.read_all(tmp_path)
    assert found.case.attack_parameters == {"steps": 40, "step_size": pytest.approx(ran)}


def test_converting_again_changes_nothing(old, capsys):
    assert main(["--results", str(old), "--convert", "--check"]) == 1
    assert "1 records converted" in capsys.readouterr().out
    (path,) = old.iterdir()
    once = path.read_bytes()
    assert convert(old) == 0
    assert [*old.iterdir()] == [path]
    assert path.read_bytes() == once


def damaged_seal(text):
    return text.replace("12.0", "13.0")


def other_answers(text):
    """Sealed again, with a score that its answers do not have."""
    content = json.loads(text)
    content.pop("seal")
    return {**content, "mra": 0.99}


@pytest.mark.parametrize("damage", [damaged_seal, other_answers])
def test_a_damaged_record_is_refused_and_left_alone(old, damage):
    (path,) = old.iterdir()
    spoiled = damage(path.read_text())
    if isinstance(spoiled, dict):
        write_sealed(path, spoiled)
    else:
        path.write_text(spoiled)
    before = path.read_bytes()
    with pytest.raises(RecordError, match=rf"{path}.*(changed since|mra is 0\.99)"):
        convert(old)
    assert [*old.iterdir()] == [path]
    assert path.read_bytes() == before
