"""What there is to measure: a subject, and the cases that are built of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..attacks import ATTACKS, CERTIFICATES, Attack, ThreatModel
from ..defenses import Population
from ..leaderboard.records import Case, Facts, Norm, Protocol
from .experiment import Experiment

# Into how many clusters, at least, images are divided where a draw is shared, for an interval.
CLUSTERS = 20


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A population and the images that it is judged on, with what is known of both.

    Attributes:
        images: test images (N, C, H, W) in [0, 1]; labels: (N,) int64.
        dataset: its id; source, sha256: where the pixels came from, and their hash.
        eps_unit: in which radii in Linf are written.
        defense_parameters: what the population was made with, the recipe included.
        random, reference: see `defenses.registry.Defense`.
        claim: see `defenses.registry.Defense`.
        population_sha256: of its weights; see `Record`.
        training_seconds: excluding a population that it started from.
        findings: what was odd before anything was spent; None: nothing was looked at.
    """

    population: Population
    images: Tensor
    labels: Tensor
    dataset: str
    source: str
    sha256: str
    classes: int
    eps_unit: float
    defense: str
    defense_version: int | str
    defense_parameters: Mapping[str, Any]
    random: str
    reference: str
    claim: Mapping[str, Mapping[str, Any]] | None
    population_sha256: str
    training_seconds: float
    findings: tuple[str, ...] | None = None


def protocols(*, several: bool, random: bool) -> tuple[Protocol, ...]:
    """The protocols beside the draw that mean anything, of one member or several, random or not."""
    known: tuple[Protocol, ...] = ("known",) if random else ()
    if not several:
        return (*known, "doubled")
    return ("alone", *(known or ("average",)), "transfer", "doubled")


def protocol_attacks(protocol: Protocol, norm: Norm) -> list[str]:
    """The attacks that a protocol beside the draw is measured under in a norm.

    Where none of those that ask for it supports the norm, the swept one on the population does.
    """
    able = [name for name in ATTACKS if norm in ATTACKS[name].norms]
    swept = [name for name in able if ATTACKS[name].swept and ATTACKS[name].kind == "population"]
    asked = [name for name in able if protocol in ATTACKS[name].protocols]
    return asked or (swept if protocol != "doubled" else [])


def entry(attack: str, protocol: Protocol) -> Attack:
    """The attack of a name or, where the protocol is "certified", the certificate."""
    return (CERTIFICATES if protocol == "certified" else ATTACKS)[attack]


def build_case(
    subject: Subject,
    attack: str,
    threat_model: ThreatModel,
    experiment: Experiment,
    *,
    protocol: Protocol = "draw",
    budget: str,
    seed: int,
) -> Case:
    """The case of an attack on a subject under an experiment's numbers.

    Clean images have no radius. Attacks on one draw are measured on all test images, the others on
    as many as the experiment has for what costs n times as much.

    Raises:
        LookupError: unknown attack.
        ValueError: the attack does not support the norm.
    """
    chosen = entry(attack, protocol)
    if threat_model.norm not in chosen.norms:
        raise ValueError(
            f"attack {attack!r} supports {', '.join(chosen.norms)}, not {threat_model.norm}"
        )
    if attack == "none":
        threat_model = ThreatModel(threat_model.norm, 0.0)
    population, count = subject.population, len(subject.images)
    numbers = {**experiment.attacks.get(attack, {}), **(subject.claim or {}).get(attack, {})}
    parameters = chosen.parameters(numbers, threat_model)
    if protocol == "doubled":
        parameters |= {name: 2 * parameters[name] for name in chosen.doubles}
    # These cost no more on many networks than on one.
    whole = chosen.kind in ("authors", "control") and protocol == "draw"
    costly = experiment.most_images(population)
    most = experiment.test_images if whole else costly
    images = min(most or experiment.test_images or count, count)
    images_per_draw = 1
    if population.random and _claims(chosen):
        # Clusters enough among those images, too, that attacks on the population see.
        images_per_draw = max(1, min(images, costly or images) // CLUSTERS)
    return Case(
        dataset=subject.dataset,
        source=subject.source,
        sha256=subject.sha256,
        test_images=count,
        images=images,
        classes=subject.classes,
        defense=subject.defense,
        defense_version=subject.defense_version,
        defense_parameters=subject.defense_parameters,
        submodels=len(population),
        draws=population.draws,
        probabilities=population.probabilities,
        attack=attack,
        attack_version=chosen.version,
        attack_parameters=parameters,
        norm=threat_model.norm,
        eps=threat_model.eps,
        images_per_draw=images_per_draw,
        batch_size=experiment.batch_size,
        protocol=protocol,
        budget=budget,
        seed=seed,
    )


def facts(subject: Subject, attack: Attack, norm: str) -> Facts:
    """What the registries know of a case in a norm."""
    claim = subject.claim or tuple(name for name in ATTACKS if _claims(ATTACKS[name]))
    return Facts(
        attack_kind=attack.kind,
        claim=tuple(name for name in claim if norm in ATTACKS[name].norms),
        random=subject.random,
        reference=subject.reference,
        eps_unit=subject.eps_unit if norm == "Linf" else 1.0,
    )


def _claims(attack: Attack) -> bool:
    return attack.kind == "authors" and attack.surrogate == "submodel"
