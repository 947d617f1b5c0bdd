import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.defenses import Population
from stand_ins import linear

LINF = ThreatModel("Linf", 0.1)
IMAGES, LABELS = torch.rand(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64)


def three():
    return [linear(1.0, -1.0), linear(-1.0, 1.0), linear(1.0, 1.0)]


@pytest.mark.parametrize(
    ("probabilities", "expected"), [(None, 2 / 3), ((0.5, 0.25, 0.25), (0.5, 0.75))]
)
def test_eq_6_by_hand(probabilities, expected):
    """Three submodels a: x0 - x1, b: x1 - x0, c: x0 + x1 > 0, one image (0.5, 0.6), label 0.

    FGSM with eps 0.2 on a moves to (0.3, 0.8): only b and c are right; on b to (0.7, 0.4): only a
    and c; on c to (0.3, 0.4): b and c. Every surrogate leaves 2 of 3 right, and under the law
    (1/2, 1/4, 1/4) a half of the answers where a or c is the surrogate, three quarters where b is.
    """
    population = Population(three(), probabilities=probabilities)
    images = torch.tensor([0.5, 0.6]).view(1, 1, 1, 2).repeat(200, 1, 1, 1)
    labels = torch.zeros(200, dtype=torch.int64)
    result = evaluate(population, images, labels, "fgsm", ThreatModel("Linf", 0.2))
    moved = result.images.flatten(1)
    on_b = moved[:, 0] > 0.5
    right = torch.where(on_b, torch.tensor([[1], [0], [1]]), torch.tensor([[0], [1], [1]])).bool()
    assert torch.equal(torch.from_numpy(result.correct), right)
    if probabilities is None:
        assert result.score.value == pytest.approx(expected)
    else:
        share = on_b.double().mean().item()
        assert result.score.value == pytest.approx(expected[0] * (1 - share) + expected[1] * share)
        # How often b is drawn: three standard deviations of 200 draws are 0.09.
        assert share == pytest.approx(0.25, abs=0.09)
    assert len(moved.unique(dim=0)) == 3
    assert result.record.unperturbed == 0


def test_the_record_says_the_parameters_that_ran():
    """PGD's step is asked for as 0.01; it must reach the edge, and not jump between corners."""
    for eps, ran in ((0.5, 0.0125), (0.3, 0.01), (0.03, 0.0075)):
        parameters = {"steps": 40, "step_size": 0.01}
        model = ThreatModel("Linf", eps)
        of = Population([linear(1.0, 1.0)])
        result = evaluate(of, IMAGES, LABELS, "pgd", model, parameters=parameters)
        assert result.record.case.attack_parameters == {"steps": 40, "step_size": ran}
        assert result.record.case.eps == eps


def test_images_in_double_precision():
    members = [member.double() for member in three()]
    images = IMAGES.double()
    result = evaluate(Population(members), images, LABELS, "worst-case", LINF, budget="smoke")
    assert result.images.dtype == torch.float64
    assert 0 <= result.score.value <= 1


def test_a_plain_list_is_refused_with_what_would_do():
    with pytest.raises(TypeError, match=r"Population\(modules\), got list"):
        evaluate([linear(1.0, 1.0)], IMAGES, LABELS, "fgsm", LINF)


def test_unknown_names_are_explained():
    with pytest.raises(LookupError, match=r"unknown attack 'pdg'; did you mean 'pgd'"):
        evaluate(Population(three()), IMAGES, LABELS, "pdg", LINF)
    with pytest.raises(LookupError, match="'quik'"):
        evaluate(Population(three()), IMAGES, LABELS, "pgd", LINF, budget="quik")
