import torch
from networks import Linear, problem_of
from randomized_defense_bench.attacks import square


def test_squares_shrink_from_most_of_the_image_to_a_pixel():
    sides = [square.side_length(step, 1000, 32, 32) for step in range(1000)]
    assert sides[0] == 29
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] <= 2


def test_the_oracle_is_asked_once_per_image_and_query_by_a_fresh_draw():
    calls = []

    class Watched(Linear):
        def forward(self, images):
            calls.append((id(self), len(images)))
            return super().forward(images)

    problem = problem_of([Watched([1.0, 1.0], 5.0) for _ in range(3)], 6, "Linf", eps=0.3)
    with torch.no_grad():
        square.square_oracle(problem, queries=40)
    # One for the first point, then pairs: 39 of 40.
    assert sum(count for _, count in calls) == 6 * 39
    assert len({name for name, _ in calls}) == 3
