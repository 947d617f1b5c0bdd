"""Randomized smoothing (Cohen et al., ICML 2019): trained on the noise that it answers with.

Random: the image, by Gaussian noise. A query is answered by one draw, as every other defense here
is; the paper's classifier is the vote of many, and its certificate follows from that of the draw.
"""

from .noise import Noise
from .population import Population
from .registry import register_defense
from .training import Task, train


@register_defense(
    "smoothing",
    build=lambda data: Noise(data.standard_network()),
    members=1,
    draws=32,
    random="noise on the image, in training too",
    reference="arXiv:1902.02918",
    certificate="clopper-pearson",
    field=True,
    version=1,
)
def smoothing(population: Population, task: Task, *, sigma: float = 0.25) -> None:
    """Train with noise of standard deviation sigma."""
    population.submodels[0].get_buffer("sigma").fill_(sigma)
    train(population, task, task.recipe)
