import pytest
import torch
from networks import Linear, problem_of
from randomized_defense_bench.attacks.objectives import (
    CLIP,
    LOSSES,
    correct_answers,
    expected_correctness,
    margins,
    settled,
)

# Two submodels, one image, three classes, label 0.
LOGITS = torch.tensor([[[2.0, 1.0, 0.0]], [[0.0, 1.0, 5.0]]])
LABELS = torch.tensor([0])
SCALE = torch.tensor([1.0, 7**0.5])
LAW = torch.tensor([0.8, 0.2], dtype=torch.float64)


def test_expected_correctness_by_hand():
    assert expected_correctness(LOGITS, LABELS).tolist() == [0.5]
    assert expected_correctness(LOGITS, LABELS, LAW).tolist() == pytest.approx([0.8])


def test_margins_are_in_units_of_each_submodel_s_spread():
    """Standard deviations: 1 for (2, 1, 0), sqrt(7) for (0, 1, 5)."""
    untargeted = margins(LOGITS, LABELS, SCALE)
    assert untargeted.flatten().tolist() == pytest.approx([-1.0, 5 / 7**0.5])
    targeted = margins(LOGITS, LABELS, SCALE, torch.tensor([1]))
    assert targeted.flatten().tolist() == pytest.approx([-1.0, 1 / 7**0.5])


def test_the_scale_is_the_clean_logits_spread():
    problem = problem_of([Linear([1.0, 0.0], 2.0), Linear([1.0, 0.0], 4.0)])
    assert problem.scale.tolist() == pytest.approx([2**0.5, 2 * 2**0.5])


@pytest.mark.parametrize("weights", [None, LAW])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_losses_by_hand(loss, weights):
    first = LOGITS[:, 0].softmax(-1)[:, 0]
    law = [0.5, 0.5] if weights is None else weights.tolist()
    expected = {
        "mean-ce": -(law[0] * first[0].log() + law[1] * first[1].log()),
        "mean-probability": -(law[0] * first[0] + law[1] * first[1]).log(),
        "mean-margin": -law[0] + law[1] * 5 / 7**0.5,
        "clipped-margin": -law[0] + law[1] * CLIP,
    }[loss]
    # Of a uniform law it is the sum's logarithm, not the mean's.
    shift = torch.tensor(2.0).log() if loss == "mean-probability" and weights is None else 0.0
    found = LOSSES[loss](LOGITS, LABELS, weights, SCALE, None).item()
    assert found == pytest.approx(float(expected - shift))


NAN, INF = torch.nan, torch.inf


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ([2.0, 1.0, -INF], True),
        ([2.0, -INF, -INF], True),
        ([-INF, 1.0, 2.0], False),
        ([INF, 1.0, 0.0], False),
        ([2.0, 1.0, NAN], False),
        ([-INF, -INF, -INF], False),
    ],
)
def test_classes_that_are_ruled_out_leave_answers_and_losses_finite(row, right):
    logits = torch.tensor([[row], [[2.0, 1.0, 0.0]]], requires_grad=True)
    assert correct_answers(logits, LABELS).tolist() == [[right], [True]]
    rows = settled(logits)
    for loss in LOSSES.values():
        value = loss(rows, LABELS, None, SCALE, None)
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_the_clipped_margin_spends_nothing_on_submodels_that_are_fooled():
    logits = LOGITS.clone().requires_grad_()
    LOSSES["clipped-margin"](logits, LABELS, None, SCALE, None).sum().backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0
