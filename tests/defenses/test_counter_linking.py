"""Eq. 4 and 5 worked by hand, and when the examination happens."""

import pytest
import torch
from randomized_defense_bench.defenses.counter_linking import (
    CounterLinking,
    diverge,
    draw_mask,
    first_weight,
)
from torch import nn

# One filter of shape (1, 2, 2); delta = 0.1, alpha = 0.5.
#   |W_0 - W_1|   0.05  0.30        beta  1 0      mask  1 1      beta * mask  1 0
#                 0.09  0.02              1 1            0 1                   0 1
W_0 = torch.tensor([[[[0.00, 1.00], [0.20, -0.40]]]])
W_1 = torch.tensor([[[[0.05, 0.70], [0.11, -0.42]]]])
MASK = torch.tensor([[[True, True], [False, True]]])


def test_an_even_submodel_moves_up_where_similar_and_linked():
    weight = W_0.clone()
    diverge(weight, W_1, index=0, mask=MASK, alpha=0.5, delta=0.1)
    assert torch.allclose(weight, torch.tensor([[[[0.50, 1.00], [0.20, 0.10]]]]))


def test_an_odd_submodel_moves_down_and_its_partner_stays():
    weight, partner = W_1.clone(), W_0.clone()
    diverge(weight, partner, index=1, mask=MASK, alpha=0.5, delta=0.1)
    assert torch.allclose(weight, torch.tensor([[[[-0.45, 0.70], [0.11, -0.92]]]]))
    assert torch.equal(partner, W_0)


def test_a_difference_of_exactly_delta_is_no_similarity():
    weight = torch.tensor([[0.5]])
    diverge(
        weight, torch.tensor([[0.25]]), index=0, mask=torch.tensor([True]), alpha=1.0, delta=0.25
    )
    assert weight.item() == 0.5


def test_the_mask_is_one_filter_for_all_and_half_of_it_is_linked():
    weight = torch.zeros(64, 3, 100, 100)
    mask = draw_mask(weight, seed=0)
    assert mask.shape == (3, 100, 100)
    assert mask.dtype == torch.bool
    # Five standard deviations of the mean of 30,000 coins are 0.015.
    assert mask.float().mean().item() == pytest.approx(0.5, abs=0.015)
    assert torch.equal(mask, draw_mask(weight, seed=0))
    assert not torch.equal(mask, draw_mask(weight, seed=1))


def test_the_first_weight_layer_is_found_behind_normalisation():
    conv = nn.Conv2d(1, 6, 5)
    assert first_weight(nn.Sequential(nn.BatchNorm2d(1), conv, nn.Linear(3, 2))) is conv.weight
    with pytest.raises(ValueError, match="ReLU has no weight layer"):
        first_weight(nn.ReLU())


def population_of(count):
    return [nn.Conv2d(1, 2, 5) for _ in range(count)]


def copies(submodels):
    return [submodel.weight.detach().clone() for submodel in submodels]


def test_it_runs_before_every_period_th_step_and_changes_every_submodel():
    submodels = population_of(3)
    link = CounterLinking(alpha=0.1, delta=100.0, period=4, seed=0)
    changed = []
    for step in range(12):
        before = copies(submodels)
        link(submodels, range(3), 0, step)
        after = copies(submodels)
        changed.append([not torch.equal(b, a) for b, a in zip(before, after, strict=True)])
    assert changed == [[False] * 3, [False] * 3, [False] * 3, [True] * 3] * 3


@pytest.mark.parametrize(
    ("count", "members", "expected"),
    # A lone submodel has nobody to differ from.
    [(3, range(1, 2), [False, True, False]), (1, range(1), [False])],
)
def test_only_those_about_to_step_are_examined(count, members, expected):
    submodels = population_of(count)
    before = copies(submodels)
    CounterLinking(alpha=0.1, delta=100.0, period=1, seed=0)(submodels, members, 0, 0)
    after = copies(submodels)
    assert [not torch.equal(b, a) for b, a in zip(before, after, strict=True)] == expected


def test_the_partner_is_drawn_uniformly_among_the_others():
    count, steps = 4, 100
    link = CounterLinking(alpha=1e-3, delta=0.5, period=1, seed=3)
    met = torch.zeros(count)
    for step in range(steps):
        # Submodel k's weights all equal 10 k, except that the partner to find equals the last's.
        for candidate in range(count - 1):
            submodels = population_of(count)
            for k, submodel in enumerate(submodels):
                submodel.weight.data.fill_(10.0 * k)
            submodels[candidate].weight.data.fill_(30.0)
            link(submodels, range(count), 0, step)
            met[candidate] += not torch.all(submodels[-1].weight == 30.0)
    assert met.sum() == steps
    assert met[:-1].min() > 15
