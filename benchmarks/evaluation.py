"""One evaluation: population x attack -> correct[n, N]."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from attacks import ATTACKS, ThreatModel, craft
from attacks.freezing import frozen
from attacks.objectives import mean_cross_entropy
from attacks.seeding import derive_seed, global_seed
from benchmarks.experiment import attack_parameters
from benchmarks.store import FileBlocks
from benchmarks.tuning import fastest_plan
from defenses import AveragedEnsemble, Population
from defenses.surrogate import Plan, Surrogate
from leaderboard import metrics


@dataclass(frozen=True)
class Evaluation:
    """What an attack left of a population.

    Attributes:
        correct: (n, N) bool: submodel i classifies perturbed image j correctly. Protocols other
            than "draw" have other shapes: see `leaderboard.records.PROTOCOLS`.
        images: (N, C, H, W), the perturbed images; with a leading (n,) where they are crafted on
            each submodel.
        surrogates: (N,) which submodel each image was crafted on, or None: on the population.
        unperturbed: share of images that came back as they were.
        largest_distance: of a perturbed image from its clean one.
        seconds: to craft the images.
    """

    correct: metrics.Correct
    images: Tensor
    surrogates: Tensor | None
    unperturbed: float
    largest_distance: float
    seconds: float

    @property
    def score(self) -> metrics.Score:
        """MRA (Eq. 6) with its 95% interval over images."""
        return metrics.score([self.correct])


def evaluate(
    population: Population,
    images: Tensor,
    labels: Tensor,
    attack: str,
    threat_model: ThreatModel,
    *,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    images_per_draw: int = 1,
    batch_size: int = 250,
    protocol: str = "draw",
    plan: Plan | None = None,
    blocks: FileBlocks | None = None,
) -> Evaluation:
    """Perturb every image with a registered attack and let the submodels classify the result.

    Args:
        population: `Population(modules)`, for any modules that map images in [0, 1] to logits.
        images: (N, C, H, W), float, in [0, 1], on the population's device.
        labels: (N,) int64.
        attack: a registered attack's name.
        threat_model: what the attacker may do.
        parameters: the attack's keyword arguments; None: those of the quick budget for MNIST.
        seed: all randomness follows from it.
        images_per_draw: consecutive images that share a drawn surrogate.
        batch_size: most images processed at once.
        protocol: who is attacked and who answers: see `leaderboard.records.PROTOCOLS`.
        plan: how attacks compute; None: as is fastest on this machine.
        blocks: where the attack's work survives being killed.

    Raises:
        LookupError: unknown attack.
        TypeError: not a Population.
        ValueError: images, labels or answers that are not what they should be.
        AttackError: the attack broke its contract.
    """
    chosen = ATTACKS[attack]
    if not isinstance(population, Population):
        raise TypeError(f"expected a Population(modules), got {type(population).__name__}")
    check_images(images, labels)
    check_answers(population, images, labels)
    if parameters is None:
        parameters = attack_parameters(attack)
    plan = plan or fastest_plan(population, images)
    surrogate = surrogate_of(population, plan, low_precision=chosen.gradient_only)
    start = time.perf_counter()
    crafted = [
        craft(
            chosen,
            target,
            images,
            labels,
            threat_model,
            seed=seed,
            parameters=parameters,
            batch_size=batch_size,
            images_per_draw=images_per_draw,
            kept=_Part(blocks, number) if blocks else None,
        )
        for number, target in enumerate(_deployed(surrogate, protocol))
    ]
    seconds = time.perf_counter() - start + (blocks.earlier_seconds if blocks else 0)
    answering = (
        [population] * len(crafted) if protocol == "transfer" else _deployed(population, protocol)
    )
    # Networks with randomness of their own are scored on other draws than they were attacked on.
    with global_seed(derive_seed(seed, "score"), images.device), _full_precision():
        correct = torch.stack(
            [
                target.correct(made.images, labels, batch_size=batch_size)
                for target, made in zip(answering, crafted, strict=True)
            ]
        )
    # (targets, answers, N) is what "transfer" holds; alone, each answers for itself.
    if protocol == "alone":
        correct = correct[:, 0]
    elif protocol != "transfer":
        correct = correct[0]
    made = torch.stack([one.images for one in crafted])
    distances = torch.stack([threat_model.distance(one, images) for one in made])
    return Evaluation(
        correct=correct.numpy(),
        images=made if protocol in ("alone", "transfer") else made[0],
        surrogates=crafted[0].surrogates if protocol == "draw" else None,
        unperturbed=(made == images).flatten(2).all(dim=2).float().mean().item(),
        largest_distance=distances.max().item(),
        seconds=seconds,
    )


@contextmanager
def _full_precision() -> Iterator[None]:
    """On a GPU, convolutions in float32 rather than with 10 bits of mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _Part:
    """The blocks of one of several targets."""

    def __init__(self, blocks: FileBlocks, target: int) -> None:
        self._blocks, self._target = blocks, target

    def get(self, name: str) -> Tensor | None:
        return self._blocks.get(f"{self._target}-{name}")

    def put(self, name: str, images: Tensor, seconds: float) -> None:
        self._blocks.put(f"{self._target}-{name}", images, seconds)


def _deployed(population: Population, protocol: str) -> list[Population]:
    """What answers under a protocol, and is attacked each by itself."""
    chunk = population.chunk
    if protocol in ("alone", "transfer"):
        return [Population([submodel], chunk=chunk) for submodel in population.submodels]
    if protocol == "average":
        return [Population([AveragedEnsemble(population)], chunk=chunk)]
    return [population]


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


def zero_gradient_share(population: Population, images: Tensor, labels: Tensor) -> float:
    """The share of images at which the population's mean cross-entropy has no gradient at all."""
    with frozen(population):
        images = images.clone().requires_grad_()
        logits = population.logits(images)
        logits = logits if logits.device.type == "mps" else logits.double()
        loss = mean_cross_entropy(logits, labels, logits.new_ones(len(logits)), None).sum()
        (gradient,) = torch.autograd.grad(loss, images)
    return (gradient == 0).flatten(1).all(dim=1).float().mean().item()


def check_images(images: Tensor, labels: Tensor) -> None:
    """Refuse what would give a wrong number instead of an error.

    Raises:
        ValueError: not (N, C, H, W) floats in [0, 1] with N > 0, or not N integer labels.
    """
    if images.ndim != 4 or len(images) == 0 or not images.is_floating_point():
        raise ValueError(
            f"images must be floats of shape (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if not (images.isfinite().all() and images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images must lie in [0, 1], got [{images.min():.4g}, {images.max():.4g}]: "
            "put normalisation inside the module"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be int64 of shape ({len(images)},), got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )


@torch.no_grad()
def check_answers(population: Population, images: Tensor, labels: Tensor) -> None:
    """Refuse a population that cannot be scored, by its answer to the first two images.

    Raises:
        ValueError: logits that are not finite floats of shape (n, N, K), labels that are not below
            K, or a submodel that changes the images it is given.
    """
    first = images[:2].clone()
    with frozen(population):
        for number, submodel in enumerate(population.submodels):
            logits = submodel(first)
            whose = f"submodel {number} ({type(submodel).__name__})"
            if not isinstance(logits, Tensor) or not logits.is_floating_point():
                raise ValueError(f"{whose} must return float logits, got {type(logits).__name__}")
            if logits.ndim != 2 or len(logits) != len(first) or logits.shape[1] < 2:
                raise ValueError(
                    f"{whose} must return logits (N, K) with K > 1: "
                    f"for {len(first)} images it returned {tuple(logits.shape)}"
                )
            if not logits.isfinite().all():
                raise ValueError(f"{whose} returns logits that are not finite")
            if not torch.equal(first, images[:2]):
                raise ValueError(f"{whose} changes the images it is given; let it work on a copy")
            if labels.min() < 0 or labels.max() >= logits.shape[1]:
                raise ValueError(
                    f"labels must lie in [0, {logits.shape[1] - 1}], the classes of {whose}, "
                    f"got [{labels.min()}, {labels.max()}]"
                )
