import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.threat_model import NORMS, ThreatModel, parse_eps


@pytest.mark.parametrize(
    ("written", "expected"), [("8/255", 8 / 255), ("0.3", 0.3), (0, 0.0), ("1e-2", 0.01)]
)
def test_eps_is_read_as_people_write_it(written, expected):
    assert parse_eps(written) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", ["-0.1", "nan", "inf", "lots", "1/0", "", None, -1, math.nan])
def test_eps_that_is_no_radius_is_refused_by_value(wrong):
    with pytest.raises(ValueError, match="finite number >= 0.*got"):
        parse_eps(wrong)


def test_unknown_norm_names_the_known_ones():
    with pytest.raises(ValueError, match="Linf, L2, got 'L7'"):
        ThreatModel("L7", 0.1)


def test_linf_projection_by_hand():
    images = torch.tensor([0.0, 0.5, 0.9]).view(1, 1, 1, 3)
    perturbed = torch.tensor([-0.4, 0.55, 1.4]).view(1, 1, 1, 3)
    projected = ThreatModel("Linf", 0.2).project(perturbed, images)
    assert projected.flatten().tolist() == pytest.approx([0.0, 0.55, 1.0])


def test_l2_projection_by_hand():
    images = torch.full((1, 1, 1, 2), 0.5)
    perturbed = images + torch.tensor([0.3, 0.4]).view(1, 1, 1, 2)
    projected = ThreatModel("L2", 0.25).project(perturbed, images)
    assert projected.flatten().tolist() == pytest.approx([0.5 + 0.15, 0.5 + 0.2])


@given(
    norm=st.sampled_from(NORMS),
    eps=st.floats(0, 2),
    seed=st.integers(0, 1000),
    spread=st.floats(0, 10),
)
def test_projection_lands_inside_stays_inside_and_moves_nothing_that_is(norm, eps, seed, spread):
    drawn = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 2, 4, 4, generator=drawn)
    perturbed = images + spread * torch.randn(3, 2, 4, 4, generator=drawn)
    threat_model = ThreatModel(norm, eps)
    once = threat_model.project(perturbed, images)
    assert threat_model.violation(once, images) is None
    assert torch.allclose(threat_model.project(once, images), once, atol=1e-6)
    assert torch.allclose(threat_model.project(images, images), images)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda x: x + 0.2, "left the ball"),
        (lambda x: x * math.nan, "not finite"),
        (lambda x: x[:1], "returned"),
        (lambda x: x.double(), "float64"),
        (lambda x: x - 0.55, "left the box"),
    ],
)
def test_a_violation_is_named(break_it, words):
    images = torch.full((2, 1, 2, 2), 0.5)
    assert words in ThreatModel("Linf", 0.1).violation(break_it(images), images)
