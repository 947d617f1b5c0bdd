import math

import pytest
import torch
from randomized_defense_bench.attacks.threat_model import ThreatModel, parse_eps


@pytest.mark.parametrize(
    ("written", "expected"), [("8/255", 8 / 255), ("0.3", 0.3), (0, 0.0), ("1e-2", 0.01)]
)
def test_eps_is_read_as_people_write_it(written, expected):
    assert parse_eps(written) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", ["-0.1", "nan", "inf", "lots", "1/0", "", "1e999", None, -1])
def test_eps_that_is_no_radius_is_refused_by_value(wrong):
    with pytest.raises(ValueError, match=f"number >= 0, such as 0.3 or 8/255, got {wrong!r}"):
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


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda x: None, "returned NoneType"),
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
