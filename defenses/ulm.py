"""Unlinked models: n submodels trained independently; and one alone, as the yardstick."""

from __future__ import annotations

from .adversarial import train_adversarially
from .population import Population
from .registry import register_defense
from .training import Task, train

# Jasser and Garibay, Resilience from Diversity.
PAPER = "arXiv:2111.10272"


@register_defense("single", members=1, random="nothing", reference=PAPER, version=2)
@register_defense("ulm", independent=True, reference=PAPER, version=2)
def ulm(population: Population, task: Task) -> None:
    """Train every submodel by itself; `single` is the same with one submodel."""
    train(population, task, task.recipe)


@register_defense("single-adv", members=1, random="nothing", reference=PAPER, version=2)
@register_defense("ulm-adv", independent=True, reference=PAPER, version=2)
def ulm_adv(
    population: Population, task: Task, *, eps: float, step_size: float, steps: int
) -> None:
    """Train every submodel by itself on adversarial examples."""
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps)
