"""One call: the worst case of a list of networks, with scores and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attacks import ATTACKS, ThreatModel
from benchmarks.case import build_case, protocol_attacks, protocols
from benchmarks.evaluation import numbers_for, subject_of
from benchmarks.measure import measure
from defenses import Population
from leaderboard import gates, metrics, records, rows
from leaderboard.gates import Gate
from leaderboard.records import Protocol, Record

# The curve against eps that the gates look at, in shares of the eps judged at.
CURVE_SHARES = (0.5, 2.0, 8.0)


@dataclass(frozen=True)
class Verdict:
    """How a population fares against an attacker who knows all but the draw.

    Attributes:
        correct: (n * draws, N) bool, under the strongest of all attacks for each image.
        images: (N, C, H, W), the perturbed images of that attack.
        worst: worst-case accuracy with its interval.
        claimed: accuracy under the attacks of defenses' authors, on one draw; None where none of
            them supports the norm.
        gates: checks that the figures must pass to be believed.
        row: every attack's and protocol's records and further scores, as the page shows them.
    """

    correct: metrics.Correct
    images: Tensor
    worst: metrics.Score
    claimed: metrics.Score | None
    gates: list[Gate]
    row: rows.Row


def judge(
    modules: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    *,
    probabilities: Sequence[float] | None = None,
    draws: int = 1,
    attacks: Sequence[str] | None = None,
    dataset: str = "own",
    name: str = "own",
    budget: str = "quick",
    seed: int = 0,
    batch_size: int = 250,
    results: Path | None = None,
) -> Verdict:
    """Attack a population with everything that supports the norm.

    Args:
        modules: n networks that map images in [0, 1] to logits; one, drawn at random, answers.
        images: (N, C, H, W), float, in [0, 1], on the networks' device; labels: (N,) int64.
        probabilities: (n,) with which networks are drawn; default: uniform.
        draws: over how many fresh passes of each network expectations are taken, where networks
            draw random numbers themselves, such as 16; 1: they are deterministic.
        attacks: names of registered attacks; default: all that support the norm. The gates say "not
            run" where they need others.
        dataset, name: what records call the images and the defense; a registered dataset's numbers
            are taken.
        budget: how much is spent: "smoke", "quick" or "paper".
        seed: all randomness follows from it.
        batch_size: most images processed at once.
        results: a folder for the records, as they come; `python -m
            randomized_defense_bench.leaderboard --results` makes their page.

    Raises:
        LookupError, ValueError, AttackError: as `evaluate`.
    """
    if isinstance(attacks, str):
        raise TypeError(f"attacks must be a list of names, got {attacks!r}: [{attacks!r}]")
    population = Population(modules, probabilities=probabilities, draws=draws)
    subject = subject_of(
        population,
        images,
        labels,
        threat_model,
        dataset=dataset,
        name=name,
        batch_size=batch_size,
    )
    numbers = numbers_for(dataset, budget, threat_model, batch_size)
    supported = [attack for attack in ATTACKS if threat_model.norm in ATTACKS[attack].norms]
    chosen = list(supported if attacks is None else attacks)
    # By name, as rows compare them: of equals the first counts.
    real = sorted(attack for attack in chosen if ATTACKS[attack].kind != "control")
    if not real:
        raise ValueError(f"attacks must name an attack (known: {', '.join(ATTACKS)}), got {chosen}")
    measured: list[Record] = []

    def run(attack: str, protocol: Protocol = "draw", share: float = 1.0) -> tuple[Record, Tensor]:
        """Attack at a share of eps, and keep the record."""
        at = ThreatModel(threat_model.norm, share * threat_model.eps)
        case = build_case(subject, attack, at, numbers, protocol=protocol, budget=budget, seed=seed)
        entry = ATTACKS[attack]
        repeat = share == 1 and protocol == "draw" and entry.swept and entry.kind == "population"
        record, perturbed = measure(case, subject, headline=share == 1, repeat=repeat)
        measured.append(record)
        if results:
            records.write(record, results)
        return record, perturbed

    run("none")
    tried: list[metrics.Answers] = []
    strongest = subject.images
    for attack in real:
        record, perturbed = run(attack)
        tried.append(record.answers)
        best = torch.from_numpy(metrics.strongest_attack(tried) == len(tried) - 1)
        strongest = torch.where(best.to(images.device).view(-1, 1, 1, 1), perturbed, strongest)
    worst = metrics.worst_case(tried)
    for attack in chosen:
        entry = ATTACKS[attack]
        if entry.kind == "control" and attack != "none":
            run(attack)
        if entry.swept and entry.kind == "population":
            for share in CURVE_SHARES:
                # In Linf all of the box is in reach of 1, and no further point is another.
                if threat_model.norm == "L2" or share * threat_model.eps <= 1:
                    run(attack, share=share)
    for protocol in protocols(several=len(population) > 1, random=population.random):
        for attack in protocol_attacks(protocol, threat_model.norm):
            if attack in chosen:
                run(attack, protocol)
    (row,) = rows.rows(measured, threat_model.norm, threat_model.eps)
    return Verdict(
        correct=np.asarray(worst.correct, bool),
        images=strongest,
        worst=metrics.score([worst]),
        claimed=row.claimed,
        gates=gates.check(row),
        row=row,
    )
