"""One cell measured: the attack, the scores' raw data, and what the gates want to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import torch
from torch import Tensor

from attacks import ThreatModel
from benchmarks.evaluation import Evaluation, evaluate, zero_gradient_share
from benchmarks.experiment import REPEATED, REPEATED_ATTACK
from benchmarks.store import FileBlocks
from defenses import Population
from defenses.surrogate import Plan
from leaderboard.records import Case, Record


def must_repeat(attack: str, *, headline: bool) -> bool:
    """Whether a cell's images are made twice, to see that the same seed gives the same."""
    return headline and attack == REPEATED_ATTACK


def measure_cell(
    cell: Case,
    population: Population,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    headline: bool,
    population_sha256: str = "",
    training_seconds: float = 0.0,
    environment: Mapping[str, str] | None = None,
    plan: Plan | None = None,
    blocks: FileBlocks | None = None,
) -> tuple[Record, Evaluation]:
    """Attack a population as a cell says, on `cell.images` images.

    Args:
        images: (N, C, H, W) in [0, 1], on the population's device.
        labels: (N,) int64.
        seed: of the attack.
        headline, population_sha256, training_seconds, environment: see `Record`.
        plan: how attacks compute; None: as is fastest on this machine.
        blocks: where the attack's work survives being killed.

    Raises:
        LookupError, ValueError, AttackError: as `evaluate`.
    """

    def run(count: int, blocks: FileBlocks | None = None) -> Evaluation:
        """The attack on the first `count` images."""
        return evaluate(
            population,
            images[:count],
            labels[:count],
            cell.attack,
            ThreatModel(cell.norm, cell.eps),
            parameters=cell.attack_parameters,
            seed=seed,
            images_per_draw=cell.images_per_draw,
            batch_size=cell.batch_size,
            protocol=cell.protocol,
            plan=plan,
            blocks=blocks,
        )

    evaluation = run(cell.images, blocks)
    zero_gradients = repeatable = None
    if cell.attack == "none":
        first = slice(cell.batch_size)
        zero_gradients = zero_gradient_share(population, images[first], labels[first])
    if must_repeat(cell.attack, headline=headline):
        repeatable = torch.equal(*(run(REPEATED).images for _ in range(2)))
    record = Record(
        cell=cell,
        correct=evaluation.correct,
        population_sha256=population_sha256,
        training_seconds=training_seconds,
        attack_seconds=evaluation.seconds,
        unperturbed=evaluation.unperturbed,
        largest_distance=evaluation.largest_distance,
        zero_gradients=zero_gradients,
        repeatable=repeatable,
        headline=headline,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment or {},
    )
    return record, evaluation
