"""What the paper's figures show, measured on a run's populations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import torch
from msgspec import structs
from torch import Tensor, nn
from torch.nn import functional as F

from ... import metrics
from ...arrays import Array
from ...attacks import ATTACKS, ThreatModel
from ...attacks.freezing import frozen
from ...attacks.seeding import derive_seed
from ...defenses import Population
from ...defenses.counter_linking import draw_mask, first_weight
from ...defenses.surrogate import Plan
from ...leaderboard.paper.evidence import COMPARED, OUTCOMES, QUANTILES, Evidence, pairs
from ...leaderboard.paper.names import CASCADE
from ...leaderboard.records import Protocol
from ...metrics import Answers, Correct
from ..environment import environment
from ..evaluation import evaluate
from ..paths import kept
from ..populations import Prepared
from ..session import Session

# What is measured, by the names of the arrays of `leaderboard.paper.evidence.KINDS`.
Values = Mapping[str, Any]
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
        self.populations = {name: prepared.population for name, prepared in self.prepared.items()}
        subject = session.subject(self.prepared[COMPARED[0]])
        self.images = subject.images[: self.figures.images]
        self.labels = subject.labels[: self.figures.images]

    @cached_property
    def plan(self) -> Plan:
        """How its populations are computed with."""
        return self.session.plan(self.populations[COMPARED[0]], self.images)

    @cached_property
    def conforming(self) -> dict[int, tuple[Session, Prepared]]:
        """CLMs of several seeds, by seed, each with a session of that seed."""
        options, sessions = self.session.options, [self.session]
        for further in range(1, self.figures.conformity):
            sessions.append(Session(replace(options, seed=options.seed + further)))
        return {s.options.seed: (s, s.prepare(self.dataset, "clm")) for s in sessions}

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

    def parameters(self, attack: str) -> dict[str, Any]:
        """The keyword arguments of an attack under the budget."""
        return ATTACKS[attack].parameters(self.numbers.attacks.get(attack, {}))

    def perturb(
        self,
        population: Population,
        attack: str,
        eps: float,
        *,
        count: int | None = None,
        protocol: Protocol = "draw",
    ) -> tuple[Tensor, Correct]:
        """The images, or the first `count`, perturbed, and which submodels answer them right."""
        evaluated = evaluate(
            population,
            self.images[:count],
            self.labels[:count],
            attack,
            ThreatModel("Linf", eps),
            parameters=self.parameters(attack),
            seed=derive_seed(self.session.options.seed, "attack", attack),
            batch_size=self.numbers.batch_size,
            protocol=protocol,
            plan=self.plan,
        )
        return evaluated.images, evaluated.correct


def masks(scene: Scene) -> Values:
    """The link tensor (Fig. 3)."""
    weight = first_weight(scene.populations["clm"].submodels[0])
    return {"mask": draw_mask(weight, seed=scene.session.options.seed).cpu().numpy()}


def weights(scene: Scene) -> Values:
    """All first-layer weights (Fig. 4)."""
    return {name: _first_weights(p).flatten(2) for name, p in scene.populations.items()}


class _SeenEnough(Exception):  # noqa: N818
    """No error: ends a training that was only watched."""


def trajectory(scene: Scene) -> Values:
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
    linked, free = torch.stack(seen).permute(2, 1, 0)
    return {"step": steps, "linked": linked, "free": free}


def saliency(scene: Scene) -> Values:
    """Cosine similarity of saliency maps, for all pairs of submodels (Fig. 6, Eq. 7 and 8)."""
    values = {}
    for name, population in scene.populations.items():
        cosines = scene.cosines(population)
        values[f"{name} quantiles"] = cosines.quantile(torch.tensor(QUANTILES), 1).T
        values[f"{name} mean"] = cosines.mean(1)
        values[f"{name} absolute"] = cosines.abs().mean(0)
    return values


def size(scene: Scene) -> Values:
    """The first k submodels deployed alone: under the paper's PGD, and in the worst case.

    The worst case is, image by image, over the cascade and the same PGD.
    """
    values: dict[str, Any] = {}
    for name, population in scene.populations.items():
        sizes, of_each = [k for k in scene.figures.sizes if k <= len(population)], []
        for k in sizes:
            part = Population(population.submodels[:k])
            both = [Answers(scene.perturb(part, a, scene.eps)[1]) for a in (CLAIMED, CASCADE)]
            of_each.append((both[0].s, metrics.worst_case(both).s))
        claimed, worst = zip(*of_each, strict=True)
        values |= {"sizes": sizes, f"{name} claimed s": claimed, f"{name} worst s": worst}
    return values


def conformity(scene: Scene) -> Values:
    """Several CLMs, each with its own ULM: every submodel's accuracy, clean and under PGD."""

    def accuracies(attack: str, eps: float) -> list[Array]:
        at = ThreatModel("Linf", eps)
        measured = (s.measure(clm, attack, at)[0] for s, clm in scene.conforming.values())
        return [record.correct.mean(axis=-1) for record in measured]

    clean, claimed = accuracies("none", 0.0), accuracies(CLAIMED, scene.eps)
    return {"seeds": list(scene.conforming), "clean": clean, "claimed": claimed}


def examples(scene: Scene) -> Values:
    """One image of each class under the attacker who knows the CLM, at growing radii."""
    population, labels = scene.populations["clm"], scene.labels.byte().cpu().numpy()
    columns = np.unique(labels, return_index=True)[1].tolist()
    radii, rows = (0.0, *scene.figures.shown_eps), []
    for eps in radii:
        perturbed, correct = scene.perturb(population, INFORMED if eps else "none", eps)
        shown = perturbed[columns]
        pixels = (shown.clamp(0, 1) * 255).round().byte().cpu().numpy()
        votes = scene.answers(population, shown).mode(0).values.byte().cpu().numpy()
        rows.append((pixels, Answers(correct).s[columns], votes))
    images, right, answers = zip(*rows, strict=True)
    return {
        "images": images,
        "eps": radii,
        "s": right,
        "labels": labels[columns],
        "answers": answers,
    }


def diversity(scene: Scene) -> Values:
    """Pairs of submodels as populations of two: how they differ, and how robust they are.

    *Transfer* is the accuracy of one under the paper's PGD on the other, mean of both ways;
    *claimed* MRA under that PGD; *worst* the worst case over it and PGD on the clipped margin of
    both. At a radius below the paper's, where the worst case still differs.
    """
    values: dict[str, Any] = {}
    eps, images = scene.figures.pair_eps, scene.figures.pair_images
    for name, whole in scene.populations.items():
        population = Population(whole.submodels[: scene.figures.pair_submodels])
        _, carried = scene.perturb(population, CLAIMED, eps, protocol="transfer", count=images)
        outcomes = []
        for a, b in zip(*pairs(len(population)), strict=True):
            pair = Population([population.submodels[a], population.submodels[b]])
            _, informed = scene.perturb(pair, INFORMED, eps, count=images)
            through = [carried[source][[a, b]] for source in (a, b)]
            worst = metrics.worst_case([Answers(correct) for correct in (informed, *through)])
            transfer = np.mean([carried[a, b], carried[b, a]])
            outcomes.append((transfer, np.mean(through), worst.s.mean()))
        by_outcome = zip(OUTCOMES, zip(*outcomes, strict=True), strict=True)
        values |= {f"{name} {outcome}": accuracies for outcome, accuracies in by_outcome}
        values[f"{name} measures"] = _differences(scene, population)
    return values


def _differences(scene: Scene, population: Population) -> Tensor:
    """How the submodels of each pair differ, by `leaderboard.paper.evidence.DIVERSITY`."""
    first, second = pairs(len(population))
    parameters = _first_weights(population).flatten(1)
    noise, _ = scene.perturb(population, "noise", scene.figures.pair_eps)
    rows = [
        1 - scene.cosines(population).mean(1),
        (parameters[first] - parameters[second]).abs().mean(1),
    ]
    for images in (scene.images, noise):
        answers = scene.answers(population, images)
        rows.append((answers[first] != answers[second]).float().mean(1))
    return torch.stack([row.cpu() for row in rows])


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
    """Eq. 7 for all pairs: (n, N, D) -> (pairs, N), in the order of `pairs`."""
    first, second = pairs(len(maps))
    return F.cosine_similarity(maps[first], maps[second], dim=-1)


def _first_weights(population: Population) -> Tensor:
    """(n, filters, ...)."""
    return torch.stack([first_weight(submodel).detach() for submodel in population.submodels])


@dataclass(frozen=True)
class Kind:
    """One kind of evidence, and what it depends on.

    Attributes:
        measure: from a scene to the arrays that `leaderboard.paper.evidence.KINDS` describes.
        numbers: fields of the budget's `Figures`.
        attacks: registered attacks, with the budget's parameters.
        at_eps: whether it is measured at a radius that defenses are ranked at.
    """

    measure: Callable[[Scene], Values]
    numbers: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    at_eps: bool = False


PAIRED = ("images", "pair_submodels", "pair_images", "pair_eps")
KINDS = {
    "masks": Kind(masks),
    "weights": Kind(weights),
    "trajectory": Kind(trajectory, ("watched_epochs",)),
    "saliency": Kind(saliency, ("images",)),
    "size": Kind(size, ("images", "sizes"), (CLAIMED, CASCADE), at_eps=True),
    "conformity": Kind(conformity, ("conformity",), (CLAIMED,), at_eps=True),
    "examples": Kind(examples, ("images", "shown_eps"), (INFORMED,)),
    "diversity": Kind(diversity, PAIRED, (CLAIMED, INFORMED)),
}


def gather(session: Session, dataset: str, kind: str) -> tuple[Evidence, int, int]:
    """Measure one kind of evidence; return it, how many were measured, and how many kept.

    As with records, what was measured on these very weights is re-used, unless this run trained
    them or was asked to measure again.

    Raises:
        As `Session.prepare` and `evaluate`.
    """
    scene, chosen, options = Scene(session, dataset), KINDS[kind], session.options
    looked_at = dict(scene.prepared)
    if kind == "conformity":
        looked_at |= {f"clm, seed {k}": clm for k, (_, clm) in scene.conforming.items()}
    measured = Evidence(
        **about(session, dataset, kind, looked_at),
        parameters={
            **{name: getattr(scene.figures, name) for name in chosen.numbers},
            **({"eps": scene.eps} if chosen.at_eps else {}),
            "submodels": {name: len(made.population) for name, made in scene.prepared.items()},
            "defenses": {name: made.parameters for name, made in scene.prepared.items()},
            "attacks": {
                name: {"version": ATTACKS[name].version, **scene.parameters(name)}
                for name in chosen.attacks
            },
        },
        arrays={},
        environment={**environment(options.device), "computation": str(scene.plan)},
    )
    if not options.rerun and not any(made.trained for made in looked_at.values()):
        for earlier in kept(measured.path(options.results), Evidence.read):
            if earlier.populations == measured.populations:
                return earlier, 0, 1
    arrays = {name: _array(values) for name, values in chosen.measure(scene).items()}
    measured = structs.replace(measured, arrays=arrays)
    measured.write(options.results)
    return measured, 1, 0


def about(
    session: Session, dataset: str, kind: str, looked_at: Mapping[str, Prepared]
) -> dict[str, Any]:
    """The fields of `leaderboard.paper.evidence.Measured`."""
    data, options = session.dataset(dataset), session.options
    return {
        "kind": kind,
        "dataset": dataset,
        "source": data.source,
        "sha256": data.sha256,
        "budget": options.budget,
        "seed": options.seed,
        "populations": {name: prepared.sha256 for name, prepared in looked_at.items()},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _array(values: Any) -> Array:
    """Bytes and bits as they are, everything else as float32."""
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    return array if array.dtype in (np.uint8, np.bool_) else array.astype(np.float32)
