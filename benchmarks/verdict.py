"""One call: the worst case of a list of networks on a few images, with scores and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from attacks import ATTACKS, ThreatModel
from benchmarks.budgets import (
    CASCADE,
    DOUBLED,
    DOUBLED_ATTACK,
    TRANSFER_ATTACK,
    attack_parameters,
)
from benchmarks.evaluation import Evaluation, evaluate, zero_gradient_share
from defenses import Population
from leaderboard import gates, metrics, table
from leaderboard.gates import Gate
from leaderboard.records import Cell, Record


@dataclass(frozen=True)
class Verdict:
    """What is left of a population under an attacker who knows all but the draw.

    Attributes:
        correct: (n, N) bool, under the best of all attacks for each image.
        images: (N, C, H, W), the perturbed images that did it.
        worst: worst-case MRA with its interval.
        claimed: MRA under the paper's attacker, who draws one submodel; None where none of the
            paper's attacks supports the norm.
        gates: checks that the figures must pass to be believed.
        row: every attack's and protocol's records and further scores, as the page shows them.
    """

    correct: metrics.Correct
    images: Tensor
    worst: metrics.Score
    claimed: metrics.Score | None
    gates: list[Gate]
    row: table.Row


def judge(
    modules: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    *,
    attacks: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> Verdict:
    """Attack a population with everything that supports the norm, at the quick budget.

    Args:
        modules: n networks that map images in [0, 1] to logits; one, drawn uniformly, answers.
        images: (N, C, H, W), float, in [0, 1], on the networks' device.
        labels: (N,) int64.
        threat_model: what the attacker may do.
        attacks: names of registered attacks; default: all that support the norm.
        seed: all randomness follows from it.
        batch_size: most images processed at once.

    Raises:
        LookupError, ValueError, AttackError: as `evaluate`.
    """
    population = Population(modules)
    records: list[Record] = []
    crafted: dict[str, Evaluation] = {}

    def run(attack: str, protocol: str = "draw") -> Evaluation:
        parameters: dict[str, Any] = ATTACKS[attack].parameters(attack_parameters(attack))
        if protocol == "doubled":
            parameters |= {name: 2 * parameters[name] for name in DOUBLED}
        limits = ThreatModel(threat_model.norm, 0.0) if attack == "none" else threat_model
        evaluation = evaluate(
            population,
            images,
            labels,
            attack,
            limits,
            parameters=parameters,
            seed=seed,
            batch_size=batch_size,
            protocol=protocol,
        )
        clean = zero_gradient_share(population, images, labels) if attack == "none" else None
        cell = Cell(
            dataset="own",
            source="own tensors",
            sha256="",
            images=len(images),
            defense="own",
            defense_version=1,
            defense_parameters={},
            submodels=len(population),
            attack=attack,
            attack_version=ATTACKS[attack].version,
            attack_parameters=parameters,
            norm=limits.norm,
            eps=limits.eps,
            images_per_draw=1,
            batch_size=batch_size,
            protocol=protocol,
            budget="quick",
            seed=seed,
        )
        records.append(
            Record(
                cell=cell,
                correct=evaluation.correct,
                population_sha256="",
                training_seconds=0.0,
                attack_seconds=evaluation.seconds,
                unperturbed=evaluation.unperturbed,
                largest_distance=evaluation.largest_distance,
                zero_gradients=clean,
                headline=True,
                measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        return evaluation

    supported = [name for name in ATTACKS if threat_model.norm in ATTACKS[name].norms]
    chosen = list(attacks) if attacks is not None else supported
    for attack in dict.fromkeys(["none", *chosen]):
        crafted[attack] = run(attack)
    for protocol, attack in (
        ("alone", CASCADE),
        ("average", CASCADE),
        ("transfer", TRANSFER_ATTACK),
        ("doubled", DOUBLED_ATTACK),
    ):
        if attack in chosen:
            run(attack, protocol)

    (row,) = table.rows(records, threat_model.norm, threat_model.eps)
    if row.worst is None:
        raise ValueError(f"no attack to judge by: {chosen}")
    against = [e for attack, e in crafted.items() if attack not in table.NOT_ATTACKS]
    lowest = torch.stack([torch.from_numpy(e.correct).float().mean(0) for e in against]).argmin(0)
    stacked = torch.stack([evaluation.images for evaluation in against])
    return Verdict(
        correct=row.worst_correct[0],
        images=stacked[lowest.to(stacked.device), torch.arange(len(images), device=stacked.device)],
        worst=row.worst,
        claimed=row.claimed,
        gates=gates.check(row),
        row=row,
    )
