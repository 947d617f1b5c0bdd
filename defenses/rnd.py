"""Random noise defense (Qin et al., NeurIPS 2021), against attackers who only send queries.

Random: the image, by Gaussian noise of standard deviation 0.02. Simplified: the network is trained
plainly, without their fine-tuning on noise.
"""

from .noise import Noise, noise
from .population import Population
from .registry import register_defense
from .training import Task


@register_defense(
    "rnd",
    build=lambda data: Noise(data.standard_network()),
    members=1,
    draws=32,
    random="little noise on the image",
    reference="arXiv:2104.11470",
    claim={"square-oracle": {}},
    field=True,
    starts_from=("single",),
    version=1,
)
def rnd(population: Population, task: Task, *, sigma: float = 0.02) -> None:
    """Take over the plainly trained network; nothing is trained."""
    noise(population, task, sigma=sigma)
