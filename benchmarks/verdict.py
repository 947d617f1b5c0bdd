"""One call: the worst case of a list of networks on a few images, with scores and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks import ATTACKS, ThreatModel
from benchmarks.evaluation import Evaluation, check_images
from benchmarks.experiment import PROTOCOL_ATTACKS, attack_parameters, doubled
from benchmarks.measurement import measure_cell
from defenses import Population
from leaderboard import gates, metrics, table
from leaderboard.gates import CURVE, Gate
from leaderboard.records import Case, Record

# The curve against eps that the gates look at, in shares of the eps judged at.
CURVE_SHARES = (0.5, 2.0, 8.0)


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
        attacks: names of registered attacks; default: all that support the norm (AutoAttack needs
            four classes). The gates say "not run" where they need others.
        seed: all randomness follows from it.
        batch_size: most images processed at once.

    Raises:
        LookupError, ValueError, AttackError: as `evaluate`.
    """
    population = Population(modules)
    check_images(images, labels)
    with torch.no_grad():
        classes = population.submodels[0](images[:1]).shape[1]
    supported = [
        name
        for name in ATTACKS
        if threat_model.norm in ATTACKS[name].norms and (name != "autoattack" or classes >= 4)
    ]
    chosen = list(supported if attacks is None else attacks)
    if not set(chosen) - {*table.NOT_ATTACKS}:
        raise ValueError(f"attacks must name an attack (known: {', '.join(ATTACKS)}), got {chosen}")
    records: list[Record] = []

    def run(attack: str, protocol: str = "draw", share: float = 1.0) -> Evaluation:
        """Attack at a share of eps, and keep the record."""
        parameters: dict[str, Any] = ATTACKS[attack].parameters(attack_parameters(attack))
        if protocol == "doubled":
            parameters = doubled(parameters)
        eps = 0.0 if attack == "none" else share * threat_model.eps
        cell = Case(
            dataset="own",
            source="own tensors",
            sha256="",
            test_images=len(images),
            images=len(images),
            classes=classes,
            defense="own",
            defense_version=1,
            defense_parameters={},
            submodels=len(population),
            attack=attack,
            attack_version=ATTACKS[attack].version,
            attack_parameters=parameters,
            norm=threat_model.norm,
            eps=eps,
            images_per_draw=1,
            batch_size=batch_size,
            protocol=protocol,
            budget="quick",
            seed=seed,
        )
        record, evaluation = measure_cell(
            cell, population, images, labels, seed=seed, headline=share == 1
        )
        records.append(record)
        return evaluation

    run("none")
    against = [run(attack) for attack in chosen if attack not in table.NOT_ATTACKS]
    if "noise" in chosen:
        run("noise")
    if CURVE in chosen:
        for share in CURVE_SHARES:
            run(CURVE, share=share)
    for protocol, attack in PROTOCOL_ATTACKS.items():
        if attack in chosen:
            run(attack, protocol)

    (row,) = table.rows(records, threat_model.norm, threat_model.eps)
    correct = torch.stack([torch.from_numpy(evaluation.correct) for evaluation in against])
    lowest = correct.float().mean(1).argmin(0)
    everything = torch.arange(len(images))
    crafted = torch.stack([evaluation.images for evaluation in against])
    best = correct[lowest, :, everything].T.numpy()
    return Verdict(
        correct=best,
        images=crafted[lowest.to(crafted.device), everything.to(crafted.device)],
        worst=metrics.score([best]),
        claimed=row.claimed,
        gates=gates.check(row),
        row=row,
    )
