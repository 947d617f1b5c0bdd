import pytest
from networks import Linear, inconsistent, problem_of

from attacks import gradient
from attacks.gradient import apgd_checkpoints
from attacks.objectives import LOSSES


def test_apgd_reconsiders_its_step_when_the_paper_says():
    assert sorted(apgd_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("loss", list(LOSSES))
def test_where_the_mean_loss_is_inconsistent_no_loss_finds_anything_from_the_clean_image(loss):
    problem = inconsistent()
    incumbent = problem.incumbent()
    gradient.pgd(problem, incumbent, LOSSES[loss], steps=100, start=problem.images)
    assert incumbent.correctness.tolist() == [1.0]


def test_finished_images_are_not_computed_again():
    seen = []

    class Watched(Linear):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    problem = problem_of([Watched([1.0, 1.0], 0.01)], 8, "Linf", eps=0.3)
    incumbent = problem.incumbent()
    gradient.pgd(problem, incumbent, LOSSES["mean-ce"], steps=50, start=problem.images)
    assert incumbent.alive.numel() == 0
    assert sum(seen) <= 8 * 4
