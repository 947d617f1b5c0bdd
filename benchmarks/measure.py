"""The only way a number is made: a case is crafted, selected and scored, and becomes a record."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..attacks import Attack, ThreatModel, craft
from ..attacks.draws import KnownDraw
from ..attacks.freezing import frozen
from ..attacks.objectives import correct_answers
from ..attacks.seeding import derive_seed, global_seed
from ..defenses import AveragedEnsemble, Population
from ..defenses.surrogate import Plan, Surrogate
from ..leaderboard.records import KNOWN_DRAWS, LEVELS, Case, Record
from ..metrics import Answers
from .case import Subject, entry, facts
from .environment import environment, full_precision, subnormals_flushed
from .store import FileBlocks
from .tuning import fastest_plan

# On so many images an attack is run twice to see that the same seed gives the same.
REPEATED = 20
# Pixels of the images, before and after, that a record holds to be shown.
SHOWN = 20_000


def measure(
    case: Case,
    subject: Subject,
    *,
    headline: bool,
    attack: Attack | None = None,
    repeat: bool = False,
    examples: int = 0,
    plan: Plan | None = None,
    blocks: FileBlocks | None = None,
) -> tuple[Record, Tensor]:
    """Attack a population as a case says, and let it answer.

    All randomness follows from the case's seed, by purpose: crafting, selecting and scoring each
    draw from generators of their own.

    Args:
        subject: its first `case.images` images are attacked; see `benchmarks.preflight`.
        headline: whether defenses are ranked at this radius.
        attack: the case's; None: the one registered under its name.
        repeat: run the attack twice on a few images, to see that the same seed gives the same.
        examples: so many of the first images, plain and perturbed, go into the record.
        plan: how attacks compute; None: as is fastest on this machine.
        blocks: where the attack's work survives being killed.

    Returns:
        The record, and the perturbed images (N, C, H, W), with a leading (n,) where they are
        crafted on each member.

    Raises:
        LookupError: unknown attack.
        ValueError: the attack does not support the norm; members without draws that are random.
        AttackError: the attack broke its contract.
    """
    population = subject.population
    images, labels = subject.images[: case.images], subject.labels[: case.images]
    chosen = attack or entry(case.attack, case.protocol)
    run = _Run(case, chosen, population, plan or fastest_plan(population, images))
    # Whatever the caller switched off, attacks follow gradients.
    with torch.inference_mode(False), torch.enable_grad(), subnormals_flushed():
        start = time.perf_counter()
        made = run.crafted(images, labels, blocks)
        seconds = time.perf_counter() - start + (blocks.earlier_seconds if blocks else 0)
        scored = [run.rows(one, labels, number, "score") for number, one in enumerate(made)]
        if not population.random:
            pairs = [(rows, run.rows(made[k], labels, k, "again")) for k, rows in enumerate(scored)]
            turned = sum((one != two).float().mean().item() for one, two in pairs) / len(pairs)
            # What a device rounds may turn one answer in a hundred.
            if turned > 0.01:
                raise ValueError(
                    f"{turned:.1%} of answers to perturbed images are others in a second pass: "
                    "a network is random in itself, and needs draws=16, say"
                )
        selecting = None
        if population.random and case.protocol not in ("known", "certified"):
            # As attackers compare attacks: by other draws than those that answer.
            shares = [run.selecting(one, labels, number) for number, one in enumerate(made)]
            selecting = torch.stack(shares).mean(0).double().numpy()
        zero_gradients = None
        if case.attack == "none":
            first = slice(case.batch_size)
            with global_seed(derive_seed(run.seed, "gradient"), images.device):
                zero_gradients = zero_gradient_share(
                    population, images[first], labels[first], chunk=run.plan.chunk
                )
        repeatable = run.repeats(images[:REPEATED], labels[:REPEATED]) if repeat else None
    threat_model = ThreatModel(case.norm, case.eps)
    unperturbed = [(one == images).flatten(1).all(dim=1).float().mean().item() for one in made]
    correct = torch.stack(scored)
    record = Record(
        case=case,
        # (targets, rows, N) is what "transfer" holds.
        correct=(correct if case.protocol == "transfer" else correct.flatten(0, 1)).numpy(),
        selecting=selecting,
        facts=facts(subject, run.attack, case.norm),
        population_sha256=subject.population_sha256,
        training_seconds=subject.training_seconds,
        attack_seconds=seconds,
        unperturbed=sum(unperturbed) / len(unperturbed),
        largest_distance=max(threat_model.distance(one, images).max().item() for one in made),
        zero_gradients=zero_gradients,
        repeatable=repeatable,
        findings=subject.findings if case.attack == "none" else None,
        examples=shown(images, made[0], examples) if examples else None,
        headline=headline,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment={**environment(images.device), "computation": str(run.plan)},
    )
    return record, made[0] if len(made) == 1 else torch.stack(made)


def shown(images: Tensor, perturbed: Tensor, most: int) -> npt.NDArray[np.uint8]:
    """The first of both (N, C, H, W) in 8 bits, (2, E, 3, H, W); where C is not 3, of one channel.

    Of large images fewer than `most`.
    """
    count = min(most, max(1, SHOWN // images[0].numel()))
    pair = torch.stack([images[:count], perturbed[:count]])
    pair = pair if pair.shape[2] == 3 else pair[:, :, :1]
    return pair.mul(255).round().byte().cpu().numpy()


def answers_of(
    population: Population, images: Tensor, labels: Tensor, *, seed: int, batch_size: int
) -> Tensor:
    """Whether each member, or fresh draw of it, classifies each image correctly.

    Args:
        batch_size: most images classified at once; where a member draws once a pass, as many share
            the draw.

    Returns:
        (n * draws, N) bool, on the CPU.
    """
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    with torch.no_grad(), frozen(population), global_seed(seed, images.device), full_precision():
        rows = [correct_answers(population.logits(b), right).cpu() for b, right in batches]
    return torch.cat(rows, dim=1)


@dataclass(frozen=True)
class _Run:
    """A case being measured: what attacks whom, and how it is computed."""

    case: Case
    attack: Attack
    population: Population
    plan: Plan

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return derive_seed(self.case.seed, "attack", self.case.attack)

    def crafted(
        self, images: Tensor, labels: Tensor, blocks: FileBlocks | None = None
    ) -> list[Tensor]:
        """The perturbed images for each target of the protocol, (N, C, H, W) each."""
        case, attack = self.case, self.attack
        if attack.kind == "certificate":
            return [images]
        if case.eps > 0 and attack.kind != "control":
            targets = self.attacked(images[:2])
        else:
            targets = self.deployed(self.population)
        # What decides by answers must see those that are scored.
        with nullcontext() if attack.gradient_only else full_precision():
            return [
                craft(
                    attack,
                    target,
                    images,
                    labels,
                    ThreatModel(case.norm, case.eps),
                    seed=self.seed,
                    parameters=case.attack_parameters,
                    batch_size=case.batch_size,
                    images_per_draw=case.images_per_draw,
                    kept=_Part(blocks, number) if blocks else None,
                ).images
                for number, target in enumerate(targets)
            ]

    def answering(self, target: int) -> Population:
        """What answers a target's images."""
        if self.case.protocol in ("alone", "known", "average"):
            return self.deployed(self.population)[target]
        return self.population

    def attacked(self, probe: Tensor) -> list[Population]:
        """What is attacked under the protocol, each by itself."""

        def copies(*, low_precision: bool) -> list[Population]:
            options = {"low_precision": low_precision}
            return self.deployed(surrogate_of(self.population, self.plan, probe=probe, **options))

        if self.attack.gradient_only:
            return copies(low_precision=True)
        targets = copies(low_precision=False)
        if self.plan.searches != "float32":
            for target, rough in zip(targets, copies(low_precision=True), strict=True):
                target.searched_through(rough)
        return targets

    def deployed(self, population: Population) -> list[Population]:
        """What answers under the protocol."""
        members, protocol = population.submodels, self.case.protocol
        if protocol in ("alone", "transfer"):
            return [population.of([member]) for member in members]
        if protocol == "average":
            return [population.of([AveragedEnsemble(population)])]
        if protocol == "known":
            draws = ((member, number) for member in members for number in range(KNOWN_DRAWS))
            known = (KnownDraw(m, derive_seed(self.seed, "known", number)) for m, number in draws)
            return [Population([draw], chunk=population.chunk) for draw in known]
        return [population]

    def rows(self, images: Tensor, labels: Tensor, target: int, purpose: str) -> Tensor:
        """`correct` (rows, N) of what answers a target's images, by draws for a purpose."""
        seed, size = derive_seed(self.seed, purpose, target), self.case.batch_size
        if self.attack.kind == "certificate":
            return self.certified(images, labels, seed)
        return answers_of(self.answering(target), images, labels, seed=seed, batch_size=size)

    def certified(self, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """`correct` (n, N) of what is proven of each member; of a random one, `LEVELS` rows."""
        case, members = self.case, self.population.submodels
        at, size = ThreatModel(case.norm, case.eps), case.batch_size
        prove = partial(self.attack.function, threat_model=at, **case.attack_parameters)
        batches = [*zip(images.split(size), labels.split(size), strict=True)]
        with frozen(self.population), global_seed(seed, images.device), full_precision():
            proven = [torch.cat([prove(member, *b).cpu() for b in batches]) for member in members]
        steps = LEVELS if self.population.random else 1
        levels = torch.arange(1, steps + 1, dtype=torch.float64).view(-1, 1) / steps
        return (torch.stack(proven).unsqueeze(1) >= levels).flatten(0, 1)

    def selecting(self, images: Tensor, labels: Tensor, target: int) -> Tensor:
        """s_j (N,) of a target's images, by draws of its own."""
        law = self.case.probabilities if self.answering(target) is self.population else None
        rows = self.rows(images, labels, target, "select").numpy()
        return torch.from_numpy(Answers(rows, probabilities=law, draws=self.case.draws).s)

    def repeats(self, images: Tensor, labels: Tensor) -> bool:
        """Whether two runs give the same: on a CPU the same images, else nearly the same answers.

        A GPU's kernels do not promise the same bits, and a sign turns the last bit into a whole
        step.
        """
        pair = [self.crafted(images, labels)[0] for _ in range(2)]
        if images.device.type == "cpu":
            return torch.equal(*pair)
        first, second = (
            answers_of(
                self.population, one, labels, seed=self.seed, batch_size=self.case.batch_size
            )
            for one in pair
        )
        return (first != second).float().mean().item() <= 1 / REPEATED


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


def surrogate_of(
    population: Population, plan: Plan, *, low_precision: bool, probe: Tensor
) -> Surrogate:
    """The population as attacks compute with it, with its present weights; see `Surrogate`."""
    built = _surrogates.setdefault(population, {})
    low_precision &= plan.dtype != "float32"
    key = (*map(id, population.modules()), plan, low_precision)
    if key not in built:
        built[key] = Surrogate(population, plan, low_precision=low_precision, probe=probe)
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
            zero += int((total.nan_to_num(0.0, 0.0, 0.0) == 0).flatten(1).all(dim=1).sum())
    return zero / len(images)
