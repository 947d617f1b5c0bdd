"""Attacks on random classifiers that other projects offer, beside the worst case of this suite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import ATTACKS, Attack, ThreatModel
from ..leaderboard.records import Case, Record
from .populations import Prepared
from .session import Extras, Session

# Test images, the first; at smoke, steps and draws of anything.
IMAGES, SMOKE = 200, 2


def autoattack_rand(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    draws: int,
) -> Tensor:
    """AutoAttack's version for random defenses: APGD on two losses, gradients of `draws` draws.

    From the package of its authors. An image that a single draw misclassifies counts as done there,
    and stays as it is; see docs/pitfalls.md.
    """
    from pyautoattack import AutoAttack

    seed = int(torch.randint(2**31, ()))
    norm, eps = threat_model.norm, threat_model.eps
    kind: dict[str, Any] = {"norm": norm, "eps": eps, "version": "rand", "device": images.device}
    attack = AutoAttack(model, seed=seed, **kind)
    attack.apgd.n_iter, attack.apgd.eot_iter = steps, draws
    perturbed: Tensor = attack.run_standard_evaluation(images, labels, batch_size=len(images))[0]
    # It adds and subtracts: by rounding errors it leaves the ball.
    return threat_model.project(perturbed, images)


RAND = Attack(
    "autoattack-rand",
    autoattack_rand,
    surrogate="population",
    norms=("Linf", "L2"),
    version=1,
)


def peers(session: Session, prepared: Prepared, at: ThreatModel) -> Iterator[tuple[Attack, Case]]:
    """Others' attacks that fit a population and a norm, as they are run."""
    small = session.options.budget == "smoke"
    numbers: list[tuple[Attack, dict[str, Any]]] = [
        (ATTACKS["pgd-eot"], {"steps": 20, "draws": 20, "step_size": at.eps / 4}),
        (RAND, {"steps": 100, "draws": 20}),
    ]
    if len(prepared.population) > 1 and not prepared.population.random:
        numbers.append((ATTACKS["arc"], {"steps": 20, "candidates": 3}))
    # Of any attack on the population.
    whole = session.case(prepared, "worst-case", at)
    for attack, parameters in numbers:
        if at.norm not in attack.norms:
            continue
        if small:
            parameters |= {name: SMOKE for name in ("steps", "draws") if name in parameters}
        yield (
            attack,
            replace(
                whole,
                images=min(IMAGES, whole.images),
                attack=attack.name,
                attack_version=attack.version,
                attack_parameters=attack.parameters(parameters, at),
            ),
        )


def measure_peers(session: Session, prepared: Prepared) -> list[tuple[Record, bool]]:
    """Records of others' attacks at the first radius, and whether each was on disk already."""
    at = session.radii(prepared.dataset.name)[0]
    extras = Extras(folder=session.options.results / "peers")
    return [
        session.measure_case(prepared, case, extras, attack=attack)
        for attack, case in peers(session, prepared, at)
    ]
