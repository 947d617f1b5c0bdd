"""One call: a list of networks under one attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import metrics
from ..attacks import ThreatModel
from ..attacks.freezing import changed, held
from ..attacks.registry import check_name
from ..defenses import Population
from ..defenses.description import description
from ..defenses.surrogate import Plan
from ..leaderboard.records import Protocol, Record
from .case import Subject, build_case
from .datasets import DATASETS, experiment
from .experiment import Experiment, Parameters, attack_numbers
from .measure import measure
from .preflight import check_images, check_radius, preflight
from .store import digest_of


@dataclass(frozen=True)
class Evaluation:
    """What an attack left of a population.

    Attributes:
        images: (N, C, H, W), perturbed; with a leading (n,) where they are crafted on each member.
        findings: what was odd before the attack, as warnings said: a line each.
    """

    record: Record
    images: Tensor
    findings: tuple[str, ...]

    @property
    def correct(self) -> metrics.Correct:
        """Bool: draw or member i classifies perturbed image j correctly; see `PROTOCOLS`."""
        return self.record.correct

    @property
    def score(self) -> metrics.Score:
        """Accuracy, the expectation over draws (MRA, Eq. 6), with its 95% interval."""
        return self.record.score


def subject_of(
    population: Population,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    *,
    dataset: str = "own",
    name: str = "own",
    batch_size: int,
    plan: Plan | None = None,
) -> Subject:
    """A population of anybody's, on images of anybody's; arguments and errors as in `evaluate`."""
    if not isinstance(threat_model, ThreatModel):
        raise TypeError(
            f'threat_model must be a ThreatModel("Linf", 8 / 255), got {threat_model!r}'
        )
    if not isinstance(population, Population):
        raise TypeError(f"expected a Population(modules), got {type(population).__name__}")
    # What fastai and torchvision add to tensors is left behind.
    images, labels = (
        tensor.as_subclass(Tensor) if isinstance(tensor, Tensor) else tensor
        for tensor in (images, labels)
    )
    for what, word in (("dataset", dataset), ("name", name)):
        check_name(what, word)
    check_images(images, labels)
    check_radius(threat_model, images)
    images, labels = _usable(population, images), _followed(labels)
    before = held(population)
    found = preflight(
        population,
        images,
        labels,
        batch_size=batch_size,
        threat_model=threat_model,
        plan=plan,
        expected=DATASETS[dataset].classes if dataset in DATASETS else None,
    )
    # What is another after every pass, such as what a network counts, is no setting.
    code = description(population.submodels, changed(before, population))
    one = len(population) == 1
    own = "the network's own" if one else "which network answers, and the network's own"
    exact = "nothing" if one else "which network answers"
    return Subject(
        population=found.ready(population),
        images=images,
        labels=labels,
        dataset=dataset,
        source="own tensors",
        sha256=digest_of({"images": images, "labels": labels}),
        classes=found.classes,
        eps_unit=DATASETS[dataset].eps_unit if dataset in DATASETS else 1.0,
        defense=name,
        defense_version=1,
        defense_parameters={},
        random=own if population.random else exact,
        reference="",
        claim=None,
        population_sha256=digest_of(population.state_dict(), {"code": code}),
        training_seconds=0.0,
        findings=found.findings,
    )


def _usable(population: Population, images: Tensor) -> Tensor:
    """Images in float64 for networks that are in it, else in float32, without rounding errors.

    Denormalised pixels may lie outside [0, 1] by a few 1e-8.
    """
    own = next((w.dtype for w in population.parameters() if w.is_floating_point()), images.dtype)
    exact = torch.float64 if own == torch.float64 else torch.float32
    return _followed(images.to(exact).clamp(0, 1))


def _followed(tensor: Tensor) -> Tensor:
    """The same without a history, that autograd may follow: not one of `torch.inference_mode`."""
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor.detach()


def numbers_for(
    dataset: str, budget: str, threat_model: ThreatModel, batch_size: int
) -> Experiment:
    """The numbers to attack with: the dataset's, or a budget's for a dataset of anybody's.

    Raises:
        LookupError: unknown budget.
    """
    attacks: Mapping[str, Parameters] = attack_numbers(
        budget, step_size=threat_model.eps / 4, rivals=0 if budget == "smoke" else 4
    )
    # Of a dataset of anybody's nothing else is taken.
    known = experiment(budget, dataset if dataset in DATASETS else next(iter(DATASETS)))
    if dataset in DATASETS:
        attacks = known.attacks
    return replace(
        known,
        attacks=attacks,
        batch_size=batch_size,
        test_images=None,
        population_images=None,
        drawn_images=None,
    )


def evaluate(
    population: Population,
    images: Tensor,
    labels: Tensor,
    attack: str,
    threat_model: ThreatModel,
    *,
    parameters: Mapping[str, Any] | None = None,
    dataset: str = "own",
    budget: str = "quick",
    seed: int = 0,
    images_per_draw: int | None = None,
    batch_size: int = 250,
    protocol: Protocol = "draw",
    plan: Plan | None = None,
) -> Evaluation:
    """Perturb every image with a registered attack and let the members classify the result.

    Args:
        population: `Population(modules)`, for any modules that map images in [0, 1] to logits.
        images: (N, C, H, W), float, in [0, 1], on the population's device; labels: (N,) int64.
        parameters: the attack's keyword arguments; None: the budget's.
        dataset: whose numbers are taken; any other name: the budget's for any images.
        seed: all randomness follows from it.
        images_per_draw: consecutive images that share a draw of the attacker's; None: 1, and of a
            random network as many as leave at least twenty draws.
        batch_size: most images processed at once.
        protocol: who is attacked and who answers: see `leaderboard.records.PROTOCOLS`.
        plan: how attacks compute; None: as is fastest on this machine.

    Raises:
        LookupError: unknown attack or budget.
        TypeError: not a Population.
        ValueError: images, labels or answers that are not what they should be, or eps in units of
            0 to 255.
        AttackError: the attack broke its contract.
    """
    subject = subject_of(
        population,
        images,
        labels,
        threat_model,
        dataset=dataset,
        batch_size=batch_size,
        plan=plan,
    )
    numbers = numbers_for(dataset, budget, threat_model, batch_size)
    if parameters is not None:
        numbers = replace(numbers, attacks={**numbers.attacks, attack: parameters})
    case = build_case(
        subject, attack, threat_model, numbers, protocol=protocol, budget=budget, seed=seed
    )
    if images_per_draw is not None:
        case = replace(case, images_per_draw=images_per_draw)
    measured = measure(case, subject, headline=True, plan=plan)
    return Evaluation(*measured, findings=subject.findings or ())
