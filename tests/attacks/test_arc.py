import pytest
import torch
from networks import Linear, inconsistent, problem_of
from randomized_defense_bench.attacks.arc import arc


def test_arc_finds_what_mean_losses_miss():
    problem = inconsistent()
    incumbent = problem.incumbent()
    arc(problem, incumbent, steps=10, candidates=1, start=problem.images)
    assert incumbent.correctness.tolist() == [0.5]


@pytest.mark.parametrize(("probabilities", "fooled"), [((0.9, 0.1), 0), ((0.1, 0.9), 1)])
def test_arc_serves_the_likelier_submodel_first(probabilities, fooled):
    """Only one of two opposite submodels can be fooled."""
    submodels = [Linear([1.0, 0.0], 0.2), Linear([-1.0, 0.0], 0.2)]
    problem = problem_of(submodels, 4, "Linf", eps=0.4, probabilities=probabilities)
    incumbent = problem.incumbent()
    arc(problem, incumbent, steps=5, candidates=1, start=problem.images)
    right = problem.logits(incumbent.images, torch.arange(len(incumbent.images))).argmax(-1) == 0
    assert right[fooled].any().item() is False
    assert right[1 - fooled].all().item() is True
