"""What the paper's figures show, measured on a run's populations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import ATTACKS, ThreatModel
from attacks.freezing import frozen
from attacks.seeding import derive_seed
from benchmarks.environment import environment
from benchmarks.evaluation import evaluate
from benchmarks.populations import Prepared
from benchmarks.session import Session
from defenses import Population
from defenses.counter_linking import draw_mask, first_weight
from defenses.surrogate import Plan
from leaderboard import metrics
from leaderboard.files import set_aside
from leaderboard.metrics import Answers, Correct
from leaderboard.paper import evidence
from leaderboard.paper.evidence import COMPARED, QUANTILES, Array, Evidence
from leaderboard.paper.names import CASCADE
from leaderboard.records import RecordError

Arrays = dict[str, Array]
# The paper's attacker, and one who knows the population at the same price.
CLAIMED, INFORMED = "pgd", "pgd-clipped-margin"


class Scene:
    """One dataset in one run: what a kind of evidence looks at.

    Attributes:
        eps: the radius of attacks, the least of those that defenses are ranked at.
        prepared, populations: the compared ones, by defense.
        images: the first test images, as many as the budget studies, (N, C, H, W).
        labels: (N,).
    """

    def __init__(self, session: Session, dataset: str) -> None:
        self.session, self.dataset = session, dataset
        self.numbers = session.experiment(dataset)
        self.figures = self.numbers.figures
        self.eps = min(threat_model.eps for threat_model in session.radii(dataset))
        self.prepared = {defense: session.prepare(dataset, defense) for defense in COMPARED}
        self.populations = {name: one.population for name, one in self.prepared.items()}
        data, shown = session.dataset(dataset), slice(self.figures.images)
        device = session.options.device
        channels_last = torch.channels_last
        self.images = data.test_images[shown].to(device, memory_format=channels_last)
        self.labels = data.test_labels[shown].to(device)

    @cached_property
    def plan(self) -> Plan:
        """How its populations are computed with."""
        return self.session.plan(self.populations[COMPARED[0]], self.images)

    @cached_property
    def conforming(self) -> dict[int, tuple[Session, Prepared]]:
        """CLMs of several seeds, by seed, each with a session of that seed."""
        found = {}
        first = self.session.options.seed
        for seed in range(first, first + self.figures.conformity):
            options = replace(self.session.options, seed=seed)
            session = self.session if seed == first else Session(options)
            found[seed] = (session, session.prepare(self.dataset, "clm"))
        return found

    def answers(self, population: Population, images: Tensor) -> Tensor:
        """The class that each submodel gives: (N, C, H, W) -> (n, N)."""
        with frozen(population), torch.no_grad():
            batches = images.split(self.numbers.batch_size)
            return torch.cat([population.logits(batch).argmax(-1) for batch in batches], dim=1)

    def cosines(self, population: Population) -> Tensor:
        """Of the saliency maps of all pairs, on the CPU: (pairs, N)."""
        size = self.numbers.batch_size
        batches = zip(self.images.split(size), self.labels.split(size), strict=True)
        maps = [saliency_maps(population, *batch).cpu() for batch in batches]
        return pairwise_cosines(torch.cat(maps, dim=1))

    def perturb(
        self, population: Population, attack: str, eps: float, **options: Any
    ) -> tuple[Tensor, Correct]:
        """The images perturbed, and which submodels answer them correctly.

        Args:
            options: `count`, of the first images, and `protocol` of `evaluate`.
        """
        count = options.pop("count", None)
        found = evaluate(
            population,
            self.images[:count],
            self.labels[:count],
            attack,
            ThreatModel("Linf", eps),
            parameters=ATTACKS[attack].parameters(self.numbers.attacks.get(attack, {})),
            seed=derive_seed(self.session.options.seed, "attack", attack),
            batch_size=self.numbers.batch_size,
            plan=self.plan,
            **options,
        )
        return found.images, found.correct


@dataclass(frozen=True)
class Kind:
    """One kind of evidence, and what it depends on.

    Attributes:
        measure: from a scene to the arrays that `leaderboard.paper.evidence.KINDS` describes.
        numbers: fields of the budget's `Figures`.
        attacks: registered attacks, with the budget's parameters.
        at_eps: whether it is measured at a radius that defenses are ranked at.
    """

    measure: Callable[[Scene], Arrays]
    numbers: tuple[str, ...]
    attacks: tuple[str, ...]
    at_eps: bool


KINDS: dict[str, Kind] = {}
Measure = Callable[[Scene], Arrays]


def _depends_on(
    *numbers: str, attacks: tuple[str, ...] = (), at_eps: bool = False
) -> Callable[[Measure], Measure]:
    """Register a kind of evidence under its function's name."""

    def register(measure: Measure) -> Measure:
        KINDS[measure.__name__] = Kind(measure, numbers, attacks, at_eps)
        return measure

    return register


@_depends_on()
def masks(scene: Scene) -> Arrays:
    """The link tensor (Fig. 3)."""
    weight = first_weight(scene.populations["clm"].submodels[0])
    return {"mask": draw_mask(weight, seed=scene.session.options.seed).cpu().numpy()}


@_depends_on()
def weights(scene: Scene) -> Arrays:
    """All first-layer weights (Fig. 4)."""
    return {name: _numpy(_first_weights(p).flatten(2)) for name, p in scene.populations.items()}


class _SeenEnough(Exception):  # noqa: N818
    """No error: ends a training that was only watched."""


@_depends_on("watched_epochs")
def trajectory(scene: Scene) -> Arrays:
    """One counter-linked and one free weight in all submodels while they are retrained (Fig. 5).

    The first of each in the first filter, read before every similarity examination and at the end
    of what is watched.
    """
    period = scene.numbers.defenses["clm"]["period"]
    mask = masks(scene)["mask"].ravel()
    places = [int(mask.argmax()), int((~mask).argmax())]
    steps: list[int] = []
    seen: list[Tensor] = []
    taken = count()

    def look(submodels: Iterable[nn.Module], step: int) -> None:
        steps.append(step)
        filters = [first_weight(submodel)[0].flatten()[places] for submodel in submodels]
        seen.append(torch.stack(filters).detach().clone())

    def observe(submodels: Sequence[nn.Module], _: range, epoch: int, step: int) -> None:
        total = next(taken)
        over = epoch == scene.figures.watched_epochs
        if over or total == 0 or (step + 1) % period == 0:
            look(submodels, total)
        if over:
            raise _SeenEnough

    with suppress(_SeenEnough):
        trained = scene.session.watch_training(scene.dataset, "clm", observe)
        look(trained.submodels, next(taken))
    linked, free = _numpy(torch.stack(seen).permute(2, 1, 0))
    return {"step": np.asarray(steps, np.float32), "linked": linked, "free": free}


@_depends_on("images")
def saliency(scene: Scene) -> Arrays:
    """Cosine similarity of saliency maps, for all pairs of submodels (Fig. 6, Eq. 7 and 8)."""
    arrays: Arrays = {}
    for name, population in scene.populations.items():
        cosines = scene.cosines(population)
        arrays[f"{name} quantiles"] = _numpy(cosines.quantile(torch.tensor(QUANTILES), 1).T)
        arrays[f"{name} mean"] = _numpy(cosines.mean(1))
        arrays[f"{name} absolute"] = _numpy(cosines.abs().mean(0))
    return arrays


@_depends_on("images", "sizes", attacks=(CLAIMED, CASCADE), at_eps=True)
def size(scene: Scene) -> Arrays:
    """The first k submodels deployed alone: under the paper's PGD, and in the worst case.

    The worst case is, image by image, over the cascade and the same PGD.
    """
    arrays: dict[str, list[Any]] = {}
    for name, population in scene.populations.items():
        arrays["sizes"] = [k for k in scene.figures.sizes if k <= len(population)]
        arrays |= {f"{name} claimed s": [], f"{name} worst s": []}
        for k in arrays["sizes"]:
            part = Population(population.submodels[:k])
            both = [Answers(scene.perturb(part, a, scene.eps)[1]) for a in (CLAIMED, CASCADE)]
            arrays[f"{name} claimed s"].append(both[0].s)
            arrays[f"{name} worst s"].append(metrics.worst_case(both).s)
    return _floats(arrays)


@_depends_on("conformity", attacks=(CLAIMED,), at_eps=True)
def conformity(scene: Scene) -> Arrays:
    """Several CLMs, each with its own ULM: every submodel's accuracy, clean and under PGD."""
    arrays: dict[str, list[Any]] = {"seeds": list(scene.conforming), "clean": [], "claimed": []}
    for session, prepared in scene.conforming.values():
        for name, attack, eps in (("clean", "none", 0.0), ("claimed", CLAIMED, scene.eps)):
            record, _ = session.measure(prepared, attack, ThreatModel("Linf", eps))
            arrays[name].append(record.correct.mean(axis=-1))
    return _floats(arrays)


@_depends_on("images", "shown_eps", attacks=(INFORMED,))
def examples(scene: Scene) -> Arrays:
    """One image of each class under the attacker who knows the CLM, at growing radii."""
    population, labels = scene.populations["clm"], scene.labels.cpu()
    columns = [int((labels == label).int().argmax()) for label in labels.unique()]
    radii = (0.0, *scene.figures.shown_eps)
    images, right, answers = [], [], []
    for eps in radii:
        perturbed, correct = scene.perturb(population, INFORMED if eps else "none", eps)
        shown = perturbed[columns]
        votes = scene.answers(population, shown).mode(0).values
        images.append((shown.clamp(0, 1) * 255).round().byte().cpu().contiguous().numpy())
        right.append(Answers(correct).s[columns])
        answers.append(votes.byte().cpu().numpy())
    return {
        **_floats({"eps": radii, "s": right}),
        "images": np.stack(images),
        "labels": labels[columns].byte().numpy(),
        "answers": np.stack(answers),
    }


@_depends_on(*("images", "pair_submodels", "pair_images", "pair_eps"), attacks=(CLAIMED, INFORMED))
def diversity(scene: Scene) -> Arrays:
    """Pairs of submodels as populations of two: how they differ, and what attacks leave of them.

    *Transfer* is the accuracy of one under the paper's PGD on the other, mean of both ways;
    *claimed* MRA under that PGD; *worst* the worst case over it and PGD on the clipped margin of
    both. At a radius below the paper's, where the worst case still differs.
    """
    arrays: Arrays = {}
    eps, images = scene.figures.pair_eps, scene.figures.pair_images
    for name, whole in scene.populations.items():
        population = Population(whole.submodels[: scene.figures.pair_submodels])
        _, carried = scene.perturb(population, CLAIMED, eps, protocol="transfer", count=images)
        outcomes: dict[str, list[Any]] = {"transfer": [], "claimed": [], "worst": []}
        for a, b in zip(*evidence.pairs(len(population)), strict=True):
            pair = Population([population.submodels[a], population.submodels[b]])
            _, informed = scene.perturb(pair, INFORMED, eps, count=images)
            through = [carried[source][[a, b]] for source in (a, b)]
            worst = metrics.worst_case([Answers(one) for one in (informed, *through)])
            outcomes["transfer"].append(np.mean([carried[a, b], carried[b, a]]))
            outcomes["claimed"].append(np.mean(through))
            outcomes["worst"].append(worst.s.mean())
        arrays |= _floats({f"{name} {outcome}": v for outcome, v in outcomes.items()})
        arrays[f"{name} measures"] = _differences(scene, population)
    return arrays


def _differences(scene: Scene, population: Population) -> Array:
    """How the submodels of each pair differ, by `leaderboard.paper.evidence.DIVERSITY`."""
    first, second = evidence.pairs(len(population))
    parameters = _first_weights(population).flatten(1)
    noise, _ = scene.perturb(population, "noise", scene.figures.pair_eps)
    rows = [
        1 - scene.cosines(population).mean(1),
        (parameters[first] - parameters[second]).abs().mean(1),
    ]
    for images in (scene.images, noise):
        answers = scene.answers(population, images)
        rows.append((answers[first] != answers[second]).float().mean(1))
    return _numpy(torch.stack([row.cpu() for row in rows]))


def saliency_maps(population: Population, images: Tensor, labels: Tensor) -> Tensor:
    """d f_i(x)[y] / dx for every submodel i (Eq. 8), flattened: (n, N, C * H * W)."""
    maps = []
    with frozen(population):
        for submodel in population.submodels:
            leaf = images.clone().requires_grad_()
            score = submodel(leaf).gather(1, labels.unsqueeze(1)).sum()
            maps.append(torch.autograd.grad(score, leaf)[0].flatten(1))
    return torch.stack(maps)


def pairwise_cosines(maps: Tensor) -> Tensor:
    """Eq. 7 for all pairs: (n, N, D) -> (pairs, N), ordered as `evidence.pairs`."""
    first, second = evidence.pairs(len(maps))
    return F.cosine_similarity(maps[first], maps[second], dim=-1)


def _first_weights(population: Population) -> Tensor:
    """(n, filters, ...)."""
    return torch.stack([first_weight(submodel).detach() for submodel in population.submodels])


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().contiguous().numpy()


def _floats(arrays: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(values, np.float32) for name, values in arrays.items()}


def gather(session: Session, dataset: str, kind: str) -> tuple[Evidence, bool]:
    """Measure one kind of evidence; return it, and whether it was on disk already.

    As with records, what was measured on these very weights is re-used, unless this run trained
    them or was asked to measure again.

    Raises:
        As `Session.prepare` and `evaluate`.
    """
    scene, chosen = Scene(session, dataset), KINDS[kind]
    data, options = session.dataset(dataset), session.options
    looked_at = dict(scene.prepared)
    if kind == "conformity":
        looked_at |= {f"clm, seed {k}": one for k, (_, one) in scene.conforming.items()}
    found = Evidence(
        kind=kind,
        dataset=dataset,
        source=data.source,
        sha256=data.sha256,
        budget=options.budget,
        seed=options.seed,
        parameters=_parameters(scene, chosen),
        populations={name: prepared.sha256 for name, prepared in looked_at.items()},
        arrays={},
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment={**environment(options.device), "computation": str(scene.plan)},
    )
    path = evidence.folder_of(options.results) / f"{found.key}.json"
    if path.exists() and not options.rerun and not any(one.trained for one in looked_at.values()):
        try:
            kept = evidence.read(path)
            if kept.populations == found.populations:
                return kept, True
        except RecordError as error:
            warnings.warn(f"{error}. Set aside as {set_aside(path).name}", stacklevel=2)
    found = msgspec.structs.replace(found, arrays=chosen.measure(scene))
    evidence.write(found, options.results)
    return found, False


def _parameters(scene: Scene, kind: Kind) -> dict[str, Any]:
    """All that determines the arrays beside the weights."""
    numbers, prepared = asdict(scene.figures), scene.prepared.items()
    attacks = {
        name: {
            "version": ATTACKS[name].version,
            **ATTACKS[name].parameters(scene.numbers.attacks.get(name, {})),
        }
        for name in kind.attacks
    }
    return {
        **{name: numbers[name] for name in kind.numbers},
        **({"eps": scene.eps} if kind.at_eps else {}),
        "submodels": {name: len(one.population) for name, one in prepared},
        "defenses": {name: one.parameters for name, one in prepared},
        "attacks": attacks,
    }
