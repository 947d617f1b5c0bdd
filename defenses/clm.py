"""Counter-linked models (paper, Section 2)."""

from __future__ import annotations

from dataclasses import replace

from .adversarial import train_adversarially
from .counter_linking import CounterLinking
from .population import Population
from .registry import register_defense
from .training import Task, train
from .ulm import PAPER


@register_defense("clm", starts_from=("ulm",), reference=PAPER, version=2)
def clm(
    population: Population,
    task: Task,
    *,
    alpha: float,
    delta: float,
    period: int,
    learning_rate: float,
    epochs: int,
    from_scratch: bool = False,
) -> None:
    """Retrain the ULM of the same seed with counter-linking.

    With `from_scratch`, train new submodels with counter-linking and the ULM's recipe instead.
    """
    recipe = task.recipe
    if not from_scratch:
        population.load_state_dict(task.load("ulm").state_dict())
        recipe = replace(recipe, learning_rate=learning_rate, epochs=epochs)
    counter_linking = CounterLinking(alpha=alpha, delta=delta, period=period, seed=task.seed)
    train(population, task, recipe, before_step=counter_linking)


@register_defense("clm-adv", reference=PAPER, version=2)
def clm_adv(
    population: Population,
    task: Task,
    *,
    alpha: float,
    delta: float,
    period: int,
    eps: float,
    step_size: float,
    steps: int,
) -> None:
    """Train on adversarial examples with counter-linking from the start."""
    counter_linking = CounterLinking(alpha=alpha, delta=delta, period=period, seed=task.seed)
    train_adversarially(
        population,
        task,
        eps=eps,
        step_size=step_size,
        steps=steps,
        before_step=counter_linking,
    )
