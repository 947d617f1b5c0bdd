import pytest
from networks import inconsistent
from randomized_defense_bench.attacks import gradient
from randomized_defense_bench.attacks.gradient import apgd_checkpoints
from randomized_defense_bench.attacks.objectives import LOSSES


def test_apgd_reconsiders_its_step_when_the_paper_says():
    assert sorted(apgd_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("loss", list(LOSSES))
def test_where_the_mean_loss_is_inconsistent_no_loss_finds_anything_from_the_clean_image(loss):
    problem = inconsistent()
    incumbent = problem.incumbent()
    gradient.pgd(problem, incumbent, LOSSES[loss], steps=100, start=problem.images)
    assert incumbent.correctness.tolist() == [1.0]
