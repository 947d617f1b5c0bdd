"""How to compute: measured once, kept, and the same ever after."""

import json
import os
import subprocess
import sys
import tempfile

import pytest
import torch
from randomized_defense_bench.benchmarks import tuning
from randomized_defense_bench.benchmarks.tuning import fastest_plan, measure_plan
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.defenses.surrogate import Plan, Surrogate
from torch import nn

IMAGES = torch.rand(2, 1, 32, 32)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "_known", {})
    return tmp_path / "randomized-defense-bench" / "tuning.json"


def population(n=2):
    return Population([lenet5() for _ in range(n)])


@pytest.fixture
def measured(monkeypatch):
    """Counts measurements, each of which comes out differently."""
    plans = [Plan(stacked=True, chunk=chunk, dtype="float32") for chunk in (1, 2, 3)]
    monkeypatch.setattr(tuning, "measure_plan", lambda population, images: plans.pop(0))
    return plans


def test_a_plan_is_measured_once_and_kept(cache, measured, monkeypatch):
    first = fastest_plan(population(), IMAGES)
    assert fastest_plan(population(), IMAGES) == first
    # Another process finds it on disk.
    monkeypatch.setattr(tuning, "_known", {})
    assert fastest_plan(population(), IMAGES) == first
    assert len(json.loads(cache.read_text())) == 1


def test_another_size_shape_or_network_is_another_plan(cache, measured):
    fastest_plan(population(2), IMAGES)
    fastest_plan(population(3), IMAGES)
    fastest_plan(Population([nn.Flatten()] * 2), IMAGES)
    assert len(json.loads(cache.read_text())) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": {"chunk": 1}}', '{"x": 1}'])
def test_a_file_that_cannot_be_read_is_measured_again(cache, measured, content):
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    plan = fastest_plan(population(), IMAGES)
    assert list(json.loads(cache.read_text()).values()) == [
        {"stacked": True, "chunk": plan.chunk, "dtype": "float32", "searches": "float32"}
    ]


def test_where_nothing_can_be_kept_it_is_measured_for_the_run(tmp_path, monkeypatch, measured):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    monkeypatch.setattr(tuning, "_known", {})
    assert fastest_plan(population(), IMAGES) == fastest_plan(population(), IMAGES)
    assert len(measured) == 2


MEASURE = """
import torch
from randomized_defense_bench.benchmarks.tuning import measure_plan
from randomized_defense_bench.defenses import Population
from torch import nn
wide = nn.Conv2d(64, 64, 3, padding=1)
layers = nn.Conv2d(3, 64, 3, padding=1), wide, nn.ReLU(), wide, nn.Flatten(), nn.Linear(16384, 3)
print(measure_plan(Population([nn.Sequential(*layers)]), torch.rand(1, 3, 16, 16)).dtype)
"""


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [
        ("AVX2", "float32"),
        pytest.param(
            "ALL",
            "bfloat16",
            marks=pytest.mark.skipif(
                not torch.cpu._is_avx512_bf16_supported(), reason="a CPU without bfloat16"
            ),
        ),
    ],
)
def test_low_precision_is_chosen_where_it_is_faster(instructions, dtype):
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    run = [sys.executable, "-c", MEASURE]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == dtype


@pytest.mark.parametrize(
    ("seconds", "dtype", "searches"),
    [
        (1.0, "float32", "float32"),
        (0.7, "bfloat16", "float32"),
        (0.4, "bfloat16", "bfloat16"),
    ],
)
def test_searches_take_what_is_twice_as_fast(monkeypatch, seconds, dtype, searches):
    """Since they confirm what they find; and their plan is that of a record, and of older ones."""

    def clock(surrogate, _):
        return seconds if surrogate.low else 1.0

    class Copy(Surrogate):
        def __init__(self, *given, low_precision=False, **options):
            super().__init__(*given, low_precision=low_precision, **options)
            self.low = low_precision

    monkeypatch.setattr(tuning, "Surrogate", Copy)
    monkeypatch.setattr(tuning, "_seconds", clock)
    plan = measure_plan(population(), IMAGES)
    assert (plan.dtype, plan.searches) == (dtype, searches)
    assert Plan.parse(str(plan)) == plan
    assert Plan.parse("stacked, 100 at once, bfloat16").searches == "float32"


def test_strangers_are_not_stacked():
    class Mine(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :10]

    plan = measure_plan(Population([Mine(), Mine()]), IMAGES)
    assert (plan.stacked, plan.dtype) == (False, "float32")


def test_measuring_leaves_the_generators_as_they_were():
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    before = torch.get_rng_state()
    measure_plan(Population(networks), IMAGES[..., :2, :2])
    assert torch.equal(torch.get_rng_state(), before)
