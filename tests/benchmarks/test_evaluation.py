import pytest
import torch
from torch import nn

from attacks import ThreatModel
from benchmarks.evaluation import evaluate
from defenses import Population, of_draws


def linear(*weights):
    """Logits (w . x, 0, 0, 0) of a 1 x 1 x 2 image: class 0 while w . x > 0."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 4, bias=False))
    nn.init.zeros_(module[1].weight)
    module[1].weight.data[0] = torch.tensor(weights)
    return module


def test_eq_6_by_hand():
    """Three submodels a: x0 - x1, b: x1 - x0, c: x0 + x1 > 0, one image (0.5, 0.6), label 0.

    FGSM with eps 0.2 on a moves to (0.3, 0.8): only b and c are right; on b to (0.7, 0.4): only a
    and c; on c to (0.3, 0.4): b and c. Every surrogate leaves 2 of 3 right, on each image.
    """
    population = Population([linear(1.0, -1.0), linear(-1.0, 1.0), linear(1.0, 1.0)])
    images = torch.tensor([0.5, 0.6]).view(1, 1, 1, 2).repeat(30, 1, 1, 1)
    labels = torch.zeros(30, dtype=torch.int64)
    result = evaluate(population, images, labels, "fgsm", ThreatModel("Linf", 0.2))
    right_if_on = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    assert torch.equal(torch.from_numpy(result.correct), right_if_on[result.surrogates].T)
    assert result.score.value == pytest.approx(2 / 3)
    assert len(result.surrogates.unique()) == 3
    assert result.unperturbed == 0


def test_unperturbed_images_are_counted():
    images, labels = torch.rand(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64)
    result = evaluate(
        Population([linear(1.0, 1.0)]), images, labels, "none", ThreatModel("Linf", 0)
    )
    assert result.unperturbed == 1.0
    assert torch.equal(result.images, images)


IMAGES, LABELS = torch.rand(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64)


def test_a_plain_list_is_refused_with_what_would_do():
    with pytest.raises(TypeError, match=r"Population\(modules\), got list"):
        evaluate([linear(1.0, 1.0)], IMAGES, LABELS, "fgsm", ThreatModel("Linf", 0.1))


def test_an_unknown_attack_is_named():
    with pytest.raises(LookupError, match=r"unknown attack 'pdg'; did you mean 'pgd'"):
        evaluate(Population([linear(1.0, 1.0)]), IMAGES, LABELS, "pdg", ThreatModel("Linf", 0.1))


class CoinFlip(nn.Module):
    """Right half of the time, whatever it is shown."""

    def forward(self, batch):
        first = torch.rand(len(batch)).sub(0.5).sign() + 0 * batch.flatten(1).sum(1)
        return torch.stack([first, *torch.zeros(3, len(batch))], dim=1)


def test_a_random_network_is_scored_on_other_draws_than_it_was_attacked_on():
    """An attack keeps its luckiest draws; fresh ones show that it found nothing."""
    images, labels = torch.rand(200, 1, 1, 2), torch.zeros(200, dtype=torch.int64)
    population = of_draws(CoinFlip(), 4)
    parameters = {"steps": 20, "restarts": 1}
    limits = ThreatModel("Linf", 0.1)
    first, second = (
        evaluate(population, images, labels, "pgd-mean-ce", limits, parameters=parameters)
        for _ in range(2)
    )
    # Four standard deviations of 800 coins are 0.07.
    assert first.score.value == pytest.approx(0.5, abs=0.07)
    assert (first.correct == second.correct).all()
