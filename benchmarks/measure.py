"""The only way a number is made: a case is crafted, selected and scored, and becomes a record."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import ATTACKS, Attack, ThreatModel, craft
from attacks.freezing import frozen
from attacks.objectives import correct_answers
from attacks.seeding import derive_seed, global_seed
from benchmarks.case import Subject, facts
from benchmarks.checks import check_answers, check_images
from benchmarks.environment import environment, full_precision, subnormals_flushed
from benchmarks.store import FileBlocks
from benchmarks.tuning import fastest_plan
from defenses import AveragedEnsemble, Population
from defenses.surrogate import Plan, Surrogate
from leaderboard.metrics import Answers
from leaderboard.records import Case, Record

# On so many images an attack is run twice to see that the same seed gives the same.
REPEATED = 20


def measure(
    case: Case,
    subject: Subject,
    *,
    headline: bool,
    attack: Attack | None = None,
    repeat: bool = False,
    plan: Plan | None = None,
    blocks: FileBlocks | None = None,
) -> tuple[Record, Tensor]:
    """Attack a population as a case says, and let it answer.

    All randomness follows from the case's seed, by purpose: crafting, selecting and scoring each
    draw from generators of their own.

    Args:
        subject: its first `case.images` images are attacked.
        headline: whether defenses are ranked at this radius.
        attack: the case's; None: the one registered under its name.
        repeat: run the attack twice on a few images, to see that the same seed gives the same.
        plan: how attacks compute; None: as is fastest on this machine.
        blocks: where the attack's work survives being killed.

    Returns:
        The record, and the perturbed images (N, C, H, W), with a leading (n,) where they are
        crafted on each member.

    Raises:
        LookupError: unknown attack.
        ValueError: images, labels or answers that are not what they should be.
        AttackError: the attack broke its contract.
    """
    population, attack = subject.population, attack or ATTACKS[case.attack]
    images, labels = subject.images[: case.images], subject.labels[: case.images]
    check_images(images, labels)
    check_answers(population, images, labels)
    plan = plan or fastest_plan(population, images)
    seed = derive_seed(case.seed, "attack", case.attack)
    # Whatever the caller switched off, attacks follow gradients.
    with torch.inference_mode(False), torch.enable_grad(), subnormals_flushed():
        start = time.perf_counter()
        made = _crafted(case, attack, population, images, labels, seed, plan, blocks)
        seconds = time.perf_counter() - start + (blocks.earlier_seconds if blocks else 0)
        answers = [
            _answers(case, population, perturbed, labels, seed, number)
            for number, perturbed in enumerate(made)
        ]
        zero_gradients = repeatable = None
        if case.attack == "none":
            first = slice(case.batch_size)
            with global_seed(derive_seed(seed, "gradient"), images.device):
                zero_gradients = zero_gradient_share(
                    population, images[first], labels[first], chunk=plan.chunk
                )
        if repeat:
            few = images[:REPEATED], labels[:REPEATED]
            pair = [_crafted(case, attack, population, *few, seed, plan)[0] for _ in range(2)]
            repeatable = _same(case, population, pair, few[1], seed)
    correct = torch.stack([scored for scored, _ in answers])
    # (targets, rows, N) is what "transfer" holds.
    correct = correct if case.protocol == "transfer" else correct.flatten(0, 1)
    selecting = None
    if population.random:
        # As attackers compare attacks: by other draws than those that answer.
        selecting = torch.stack([chosen for _, chosen in answers]).mean(0).double().numpy()
    threat_model = ThreatModel(case.norm, case.eps)
    record = Record(
        case=case,
        correct=correct.numpy(),
        selecting=selecting,
        facts=facts(subject, attack, case.norm),
        population_sha256=subject.population_sha256,
        training_seconds=subject.training_seconds,
        attack_seconds=seconds,
        unperturbed=_mean([_unperturbed(one, images) for one in made]),
        largest_distance=max(threat_model.distance(one, images).max().item() for one in made),
        zero_gradients=zero_gradients,
        repeatable=repeatable,
        headline=headline,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment={**environment(images.device), "computation": str(plan)},
    )
    return record, made[0] if len(made) == 1 else torch.stack(made)


def answers_of(
    population: Population, images: Tensor, labels: Tensor, *, seed: int, batch_size: int
) -> Tensor:
    """Whether each member, or fresh draw of it, classifies each image correctly.

    Args:
        images: (N, C, H, W) in [0, 1]; labels: (N,).
        seed: of the draws.
        batch_size: most images classified at once; where a member draws once a pass, as many share
            the draw.

    Returns:
        (n * draws, N) bool, on the CPU.
    """
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    with (
        torch.no_grad(),
        frozen(population),
        global_seed(seed, images.device),
        full_precision(),
    ):
        rows = [correct_answers(population.logits(b), right).cpu() for b, right in batches]
    return torch.cat(rows, dim=1)


def _crafted(
    case: Case,
    attack: Attack,
    population: Population,
    images: Tensor,
    labels: Tensor,
    seed: int,
    plan: Plan,
    blocks: FileBlocks | None = None,
) -> list[Tensor]:
    """The perturbed images for each target of the protocol, (N, C, H, W) each."""
    if case.eps == 0 or attack.kind == "control":
        attacked: Population = population
    else:
        attacked = surrogate_of(population, plan, low_precision=attack.gradient_only)
    # What decides by answers must see those that are scored.
    with nullcontext() if attack.gradient_only else full_precision():
        return [
            craft(
                attack,
                target,
                images,
                labels,
                ThreatModel(case.norm, case.eps),
                seed=seed,
                parameters=case.attack_parameters,
                batch_size=case.batch_size,
                images_per_draw=case.images_per_draw,
                kept=_Part(blocks, number) if blocks else None,
            ).images
            for number, target in enumerate(_deployed(attacked, case.protocol))
        ]


def _answers(
    case: Case,
    population: Population,
    images: Tensor,
    labels: Tensor,
    seed: int,
    target: int,
) -> tuple[Tensor, Tensor]:
    """`correct` (rows, N) of what answers a target's images, and the selecting s_j (N,)."""
    answering = population
    if case.protocol in ("alone", "average"):
        answering = _deployed(population, case.protocol)[target]

    def rows(purpose: str) -> Tensor:
        drawn = derive_seed(seed, purpose, target)
        return answers_of(answering, images, labels, seed=drawn, batch_size=case.batch_size)

    if not population.random:
        return (scored := rows("score")), scored
    law = case.probabilities if answering is population else None
    chosen = Answers(rows("select").numpy(), probabilities=law, draws=case.draws)
    return rows("score"), torch.from_numpy(chosen.s)


def _deployed(population: Population, protocol: str) -> list[Population]:
    """What answers under a protocol, and is attacked each by itself."""
    if protocol in ("alone", "transfer"):
        return [population.of([member]) for member in population.submodels]
    if protocol == "average":
        return [population.of([AveragedEnsemble(population)])]
    return [population]


def _same(
    case: Case, population: Population, pair: list[Tensor], labels: Tensor, seed: int
) -> bool:
    """Whether two runs gave the same: on a CPU the same images, elsewhere nearly the same answers.

    A GPU's kernels do not promise the same bits, and a sign turns the last bit into a whole step.
    """
    if pair[0].device.type == "cpu":
        return torch.equal(*pair)
    first, second = (
        answers_of(population, images, labels, seed=seed, batch_size=case.batch_size)
        for images in pair
    )
    return (first != second).float().mean().item() <= 1 / REPEATED


def _unperturbed(perturbed: Tensor, images: Tensor) -> float:
    return (perturbed == images).flatten(1).all(dim=1).float().mean().item()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


class _Part:
    """The blocks of one of several targets."""

    def __init__(self, blocks: FileBlocks, target: int) -> None:
        self._blocks, self._target = blocks, target

    def get(self, name: str) -> Tensor | None:
        return self._blocks.get(f"{self._target}-{name}")

    def put(self, name: str, images: Tensor, seconds: float) -> None:
        self._blocks.put(f"{self._target}-{name}", images, seconds)


# By population, then by its modules and the precision; what was built once is only refreshed.
_Built = dict[tuple[Any, ...], Surrogate]
_surrogates: WeakKeyDictionary[Population, _Built] = WeakKeyDictionary()


def surrogate_of(population: Population, plan: Plan, *, low_precision: bool) -> Surrogate:
    """The population as attacks compute with it, with its present weights."""
    built = _surrogates.setdefault(population, {})
    low_precision &= plan.dtype != "float32"
    key = (*map(id, population.modules()), plan, low_precision)
    if key not in built:
        built[key] = Surrogate(population, plan, low_precision=low_precision)
    built[key].refresh()
    return built[key]


def zero_gradient_share(
    population: Population, images: Tensor, labels: Tensor, *, chunk: int
) -> float:
    """The share of images at which the population's mean cross-entropy has no gradient at all.

    The gradient of a mean is summed member by member, `chunk` images at once: all members' graphs
    together would take many times the memory of an attack.
    """
    law = population.probabilities or [1 / len(population)] * len(population)
    zero = 0
    with frozen(population):
        for some, right in zip(images.split(chunk), labels.split(chunk), strict=True):
            total = torch.zeros_like(some)
            for member, probability in zip(population.submodels, law, strict=True):
                for _ in range(population.draws):
                    leaf = some.clone().requires_grad_()
                    logits = member(leaf)
                    logits = logits if logits.device.type == "mps" else logits.double()
                    loss = F.cross_entropy(logits, right, reduction="sum") * probability
                    total += torch.autograd.grad(loss, leaf)[0]
            zero += int((total == 0).flatten(1).all(dim=1).sum())
    return zero / len(images)
