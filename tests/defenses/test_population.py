import pytest
import torch
from randomized_defense_bench.defenses import AveragedEnsemble, Population
from torch import nn

IMAGES = torch.zeros(4, 1, 2, 2)


class Constant(nn.Module):
    """Always votes for one class of three."""

    def __init__(self, vote):
        super().__init__()
        self.vote = vote

    def forward(self, images):
        logits = torch.zeros(len(images), 3)
        logits[:, self.vote] = 1
        return logits


class Noise(nn.Module):
    def forward(self, images):
        return torch.randn(len(images), 3)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ({"members": []}, "at least 1 submodel, got 0"),
        ({"draws": 0}, "draws must be 1 or more, got 0"),
        ({"probabilities": (0.5, 0.4)}, r"2 numbers of 0 or more with sum 1, got \[0.5, 0.4\]"),
        ({"probabilities": (1.5, -0.5)}, r"sum 1, got \[1.5, -0.5\]"),
        ({"probabilities": (0.3, 0.3, 0.4)}, "must be 2 numbers"),
        ({"probabilities": (float("nan"), 1.0)}, "must be 2 numbers"),
    ],
)
def test_what_is_no_law_is_refused(law, words):
    with pytest.raises(ValueError, match=words):
        Population(**{"members": [Constant(0), Constant(1)], **law})


def test_it_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="got <function"):
        Population([lambda x: x])


def test_logits_have_a_row_for_each_member_or_draw_of_it():
    logits = Population([Constant(0), Constant(2)]).logits(IMAGES)
    assert logits.shape == (2, 4, 3)
    assert logits.argmax(-1)[:, 0].tolist() == [0, 2]
    drawn = Population([Constant(1), Noise()], draws=3).logits(IMAGES)
    assert drawn.shape == (6, 4, 3)
    assert drawn[:3].argmax(-1).unique().tolist() == [1]
    assert len(drawn[3:].unique(dim=0)) == 3


def test_weights_are_the_rows_probabilities():
    members = [Constant(0), Constant(1)]
    assert Population(members, draws=4).weights is None
    assert Population(members, probabilities=(0.5, 0.5)).weights is None
    weights = Population(members, probabilities=(0.9, 0.1), draws=2).weights
    assert weights.tolist() == pytest.approx([0.45, 0.45, 0.05, 0.05])


@pytest.mark.parametrize("probabilities", [None, (0.6, 0.3, 0.1)])
def test_a_call_is_answered_by_one_member_drawn_by_its_probability(probabilities):
    population = Population([Constant(k) for k in range(3)], probabilities=probabilities)
    torch.manual_seed(0)
    answers = [population(IMAGES).argmax(-1) for _ in range(600)]
    assert all(len(answer.unique()) == 1 for answer in answers)
    counts = torch.stack(answers)[:, 0].bincount(minlength=3)
    expected = 600 * torch.tensor(probabilities or [1 / 3] * 3)
    # Three standard deviations of a binomial(600, 1/2) are 37.
    assert (counts - expected).abs().max() < 37
    many = population.drawn(600, torch.Generator().manual_seed(0)).bincount(minlength=3)
    assert (many - expected).abs().max() < 37


def test_an_averaged_ensemble_weighs_by_probability():
    """The likelier member's vote wins, though two others agree on another class."""
    members = [Constant(0), Constant(2), Constant(2)]
    law = Population(members, probabilities=(0.8, 0.1, 0.1))
    assert AveragedEnsemble(law)(IMAGES).argmax(-1).unique().tolist() == [0]
    assert AveragedEnsemble(Population(members))(IMAGES).argmax(-1).unique().tolist() == [2]
