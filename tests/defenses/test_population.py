import pytest
import torch
from torch import nn

from defenses import Population


class Constant(nn.Module):
    """Always votes for one class of three."""

    def __init__(self, vote):
        super().__init__()
        self.vote = vote
        self.was_training = None

    def forward(self, images):
        self.was_training = self.training
        logits = torch.zeros(len(images), 3)
        logits[:, self.vote] = 1
        return logits


def test_it_needs_a_submodel():
    with pytest.raises(ValueError, match="at least 1 submodel, got 0"):
        Population([])


def test_it_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="got <function"):
        Population([lambda x: x])


def test_logits_of_all_submodels():
    population = Population([Constant(0), Constant(2)])
    logits = population.logits(torch.zeros(5, 1, 2, 2))
    assert logits.shape == (2, 5, 3)
    assert logits.argmax(-1)[:, 0].tolist() == [0, 2]


def test_a_call_is_answered_by_one_submodel_drawn_uniformly():
    population = Population([Constant(0), Constant(1), Constant(2)])
    torch.manual_seed(0)
    answers = [population(torch.zeros(4, 1, 2, 2)).argmax(-1) for _ in range(600)]
    assert all(len(answer.unique()) == 1 for answer in answers)
    counts = torch.stack(answers)[:, 0].bincount(minlength=3)
    # Three standard deviations of a binomial(600, 1/3) are 35.
    assert (counts - 200).abs().max() < 35


def test_correct_is_by_submodel_and_image_in_evaluation_mode():
    population = Population([Constant(0), Constant(1)])
    population.train()
    correct = population.correct(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]), batch_size=2)
    assert correct.tolist() == [[True, False, False], [False, True, False]]
    assert population.submodels[0].was_training is False
    assert population.training
