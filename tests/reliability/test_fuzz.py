"""Whatever comes in: a clear error, or the truth."""

import contextlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.formats import escape, markdown_table
from randomized_defense_bench.leaderboard.pages import pages
from randomized_defense_bench.leaderboard.records import Case, RecordError
from samples import same
from torch import nn

from randomized_defense_bench.files import write_sealed

RECORD = evaluate(
    Population([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]),
    torch.full((20, 1, 2, 2), 0.5),
    torch.zeros(20, dtype=torch.int64),
    "fgsm",
    ThreatModel("Linf", 0.3),
).record
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.binary(max_size=400) | anything.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json"):
        records.read(path)


@given(st.data())
def test_a_record_with_one_part_changed_is_refused_or_consistent(tmp_path, data):
    """Sealed again, as by somebody who knows how: what is read still fits together."""
    path = records.write(RECORD, tmp_path)
    content = json.loads(path.read_text())
    content.pop("seal")
    part = data.draw(st.sampled_from(["case", "facts", "correct", "top"]))
    inside = content if part == "top" else content[part]
    name = data.draw(st.sampled_from(sorted(inside)) | st.text(max_size=8))
    inside[name] = data.draw(anything)
    write_sealed(path, content)
    # Under the name of the case as it is now, so that its parts are looked at.
    with contextlib.suppress(TypeError, ValueError, AttributeError, OSError):
        path = path.rename(tmp_path / f"{Case(**content['case']).key}.json")
    try:
        found = records.read(path)
    except RecordError:
        return
    assert found.case.key == path.stem
    assert found.correct.shape == found.case.shape
    assert found.score.value == content["mra"]
    # What can be read can be shown, and written as it was.
    assert found.case.dataset in "".join(pages(Board([found])).values())
    records.write(found, tmp_path)
    assert same(records.read(path), found)


@given(arrays(bool, (2, 20)), st.dictionaries(st.text(max_size=9), anything, max_size=3))
def test_a_record_comes_back_with_what_it_did_not_know(tmp_path, correct, extra):
    known = {*RECORD.__dataclass_fields__, "mra", "interval"}
    extra = {k: v for k, v in extra.items() if k not in known | {"schema_version", "seal"}}
    original = replace(RECORD, correct=correct, extra=json.loads(json.dumps(extra)))
    assert same(records.read(records.write(original, tmp_path)), original)


def cells_of(line):
    """How many cells a row of a GitHub table has."""
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@given(st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_table_has_the_same_cells_in_every_row(body):
    text = markdown_table(["a", "b", "c"], [[escape(cell) for cell in row] for row in body])
    lines = text.rstrip("\n").split("\n")
    assert len(lines) == 2 + len(body)
    assert {cells_of(line) for line in lines} == {3}


@given(st.data())
def test_the_page_shows_any_text_in_valid_tables(data):
    text = st.text(max_size=30)
    case = replace(
        RECORD.case,
        source=data.draw(text),
        defense_parameters={data.draw(text): data.draw(anything)},
        attack_parameters={data.draw(text): data.draw(text)},
    )
    environment = {"device": data.draw(text), "torch": data.draw(text), "commit": data.draw(text)}
    attacks = ("none", "fgsm", "pgd", "worst-case")
    shown = [
        replace(
            RECORD,
            case=replace(case, attack=attack, eps=0.0 if attack == "none" else 0.3),
            environment=environment,
            correct=data.draw(arrays(bool, (2, 20))),
        )
        for attack in attacks
    ]
    page = "\n".join(pages(Board(shown)).values())
    width = None
    for line in page.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or cells_of(line)
        assert cells_of(line) == width, line
    assert "<script" not in page


@given(
    arrays(np.float32, (3, 1, 2, 2), elements=st.floats(0, 1, width=32)),
    arrays(np.float32, (3, 1, 2, 2), elements=st.floats(-5, 5, width=32)),
    st.floats(0, 2),
    st.sampled_from(["Linf", "L2"]),
)
def test_a_projection_lies_in_the_ball_and_stays_there(images, points, eps, norm):
    threat_model = ThreatModel(norm, eps)
    images, points = torch.from_numpy(images), torch.from_numpy(points)
    inside = threat_model.project(points, images)
    assert threat_model.violation(inside, images) is None
    assert torch.allclose(threat_model.project(inside, images), inside, atol=1e-6)
    assert torch.allclose(threat_model.project(images, images), images)
