import pytest
import torch
from stand_ins import Chance, linear
from torch import nn

from benchmarks.checks import check_answers
from defenses import Population

IMAGES = torch.full((3, 1, 1, 2), 0.5)
LABELS = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("shared", [False, True])
def test_a_random_network_without_draws_is_refused_by_name(shared):
    members = [linear(1.0, 1.0), Chance(shared=shared)]
    with pytest.raises(ValueError, match=r"submodel 1 \(Chance\) gives another answer.*draws=16"):
        check_answers(Population(members), IMAGES, LABELS)
    check_answers(Population(members, draws=16), IMAGES, LABELS)


def test_draws_of_a_deterministic_network_are_refused():
    dropout = nn.Sequential(linear(1.0, 1.0), nn.Dropout(0.5)).train()
    for member in (linear(1.0, 1.0), dropout):
        with pytest.raises(ValueError, match=r"draws=16, but no member is random.*use draws=1"):
            check_answers(Population([member], draws=16), IMAGES, LABELS)
    # Before it is trained, what is random may not be so yet.
    check_answers(Population([linear(1.0, 1.0)], draws=16), IMAGES, LABELS, finished=False)


def test_checks_leave_no_trace():
    population = Population([Chance()], draws=4).train()
    state = torch.get_rng_state()
    check_answers(population, IMAGES, LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert population.submodels[0].training
