import pytest
from msgspec.structs import replace
from randomized_defense_bench.leaderboard.records import RecordError
from randomized_defense_bench.leaderboard.speed import Timing
from samples import spoil

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
