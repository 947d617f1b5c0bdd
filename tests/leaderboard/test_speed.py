import pytest
from msgspec.structs import replace
from randomized_defense_bench.leaderboard.records import RecordError
from randomized_defense_bench.leaderboard.speed.report import page
from randomized_defense_bench.leaderboard.speed.timing import Timing
from samples import spoil
from test_pages import table

TIMING = Timing(
    name="crafting-lenet5",
    budget="quick",
    work="PGD-40",
    unit="gradients/s",
    suite=20_000.0,
    others={"another tool": 8_000.0},
    growth={"n = 1": 0.1},
    note="stacked",
    measured_at="2026-01-02T03:04:05+00:00",
    environment={"device": "NVIDIA H200", "torch": "2.9", "processor": "X", "threads": "2"},
)


def test_each_device_keeps_its_own_and_a_later_one_replaces(tmp_path):
    assert Timing.read_all(tmp_path) == []
    path = TIMING.write(tmp_path)
    assert path == tmp_path / "speed" / "crafting-lenet5-quick-nvidia-h200.json"
    assert Timing.read_all(tmp_path) == [TIMING]
    replace(TIMING, environment={**TIMING.environment, "device": "cpu"}).write(tmp_path)
    replace(TIMING, suite=1.0).write(tmp_path)
    assert [timing.suite for timing in Timing.read_all(tmp_path)] == [20_000.0, 1.0]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ours", -1.0, ">= 0.0 - at `$.ours`"),
        ("environment", {"device": "cpu"}, "lacks processor, threads, torch"),
    ],
)
def test_what_is_no_timing_is_refused_by_name(tmp_path, field, value, words):
    path = TIMING.write(tmp_path)
    spoil(path, **{field: value})
    with pytest.raises(RecordError, match="crafting-lenet5-quick-nvidia-h200.json") as error:
        Timing.read_all(tmp_path)
    assert words in str(error.value)


def timed_by_hand(**changes):
    fields = {
        "name": "crafting",
        "budget": "quick",
        "work": "PGD-40 on 10 networks",
        "unit": "gradients/s",
        "suite": 21_000.0,
        "others": {"another tool": 7_000.0, "the machine's matrix products": 84_000.0},
        "growth": {"n = 1": 0.5, "n = 2": 1.0},
        "note": "stacked",
        "measured_at": "2026-01-02T03:04:05+00:00",
        "environment": {"device": "cpu", "processor": "A <b>", "threads": "2", "torch": "2.9"},
    }
    return Timing(**{**fields, **changes})


def test_a_device_has_a_block_of_its_own_and_zero_has_no_ratio():
    slow = timed_by_hand().environment
    gpu = timed_by_hand(others={"nothing": 0.0}, environment={**slow, "device": "NVIDIA X"})
    text = page([timed_by_hand(), gpu])
    cpu, nvidia = text.split("## On ")[1:]
    ratios = {r["beside"]: r["ratio"] for r in table(cpu, "ratio")}
    assert ratios == {"another tool": "3.00", "the machine's matrix products": "0.25"}
    assert table(nvidia, "ratio")[0]["ratio"] == "–"
