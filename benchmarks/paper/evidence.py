"""What the paper's figures show, measured on a run's populations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
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
from benchmarks.experiment import Figures
from benchmarks.populations import Prepared
from benchmarks.session import Session
from defenses import Population
from defenses.counter_linking import draw_mask, first_weight
from defenses.surrogate import Plan
from leaderboard import metrics
from leaderboard.files import set_aside
from leaderboard.metrics import Answers, Correct
from leaderboard.paper import evidence
from leaderboard.paper.evidence import (
    COMPARED,
    QUANTILES,
    Array,
    Evidence,
)
from leaderboard.paper.names import CASCADE
from leaderboard.records import Protocol, RecordError

Arrays = dict[str, Array]
# The paper's attacker, and one who knows the population at the same price.
CLAIMED, INFORMED = "pgd", "pgd-clipped-margin"


class Scene:
    """One dataset in one run: what a kind of evidence looks at.

    Attributes:
        eps: the radius of attacks, the least of those that defenses are ranked at.
        prepared: the compared populations, by defense.
        images: the first test images, as many as the budget studies, (N, C, H, W).
        labels: (N,).
    """

    def __init__(self, session: Session, dataset: str) -> None:
        self.session, self.dataset = session, dataset
        self.eps = min(threat_model.eps for threat_model in session.radii(dataset))
        self.prepared: dict[str, Prepared] = {
            defense: session.prepare(dataset, defense) for defense in COMPARED
        }
        data = session.dataset(dataset)
        device = session.options.device
        self.images = data.test_images[: self.figures.images].to(
            device, memory_format=torch.channels_last
        )
        self.labels = data.test_labels[: self.figures.images].to(device)
        self._conforming: dict[int, tuple[Session, Prepared]] = {}

    @property
    def figures(self) -> Figures:
        """The budget's numbers for evidence."""
        return self.session.experiment(self.dataset).figures

    @property
    def batch_size(self) -> int:
        """Most images processed at once."""
        return self.session.experiment(self.dataset).batch_size

    @property
    def plan(self) -> Plan:
        """How its populations are computed with."""
        return self.session.plan(next(iter(self.populations().values())), self.images)

    def conforming(self) -> dict[int, tuple[Session, Prepared]]:
        """CLMs of several seeds, by seed, each with a session of that seed."""
        first = self.session.options.seed
        for seed in range(first, first + self.figures.conformity):
            if seed not in self._conforming:
                options = replace(self.session.options, seed=seed)
                session = self.session if seed == first else Session(options)
                self._conforming[seed] = (session, session.prepare(self.dataset, "clm"))
        return self._conforming

    def answers(self, population: Population, images: Tensor) -> Tensor:
        """The class that each submodel gives: (N, C, H, W) -> (n, N)."""
        with frozen(population), torch.no_grad():
            batches = images.split(self.batch_size)
            return torch.cat([population.logits(batch).argmax(-1) for batch in batches], dim=1)

    def saliency_maps(self, population: Population) -> Tensor:
        """Of all the scene's images, on the CPU: (n, N, C * H * W)."""
        batches = zip(
            self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True
        )
        return torch.cat([saliency_maps(population, *batch).cpu() for batch in batches], dim=1)

    def populations(self) -> dict[str, Population]:
        """The networks themselves, by defense."""
        return {defense: prepared.population for defense, prepared in self.prepared.items()}

    def perturb(
        self,
        population: Population,
        attack: str,
        eps: float,
        *,
        protocol: Protocol = "draw",
        count: int | None = None,
    ) -> tuple[Tensor, Correct]:
        """The first `count` images perturbed, and which submodels answer them correctly."""
        numbers = self.session.experiment(self.dataset)
        found = evaluate(
            population,
            self.images[:count],
            self.labels[:count],
            attack,
            ThreatModel("Linf", eps),
            parameters=ATTACKS[attack].parameters(numbers.attacks.get(attack, {})),
            seed=derive_seed(self.session.options.seed, "attack", attack),
            batch_size=self.batch_size,
            protocol=protocol,
            plan=self.plan,
        )
        return found.images, found.correct


def masks(scene: Scene) -> Arrays:
    """The link tensor (Fig. 3)."""
    weight = first_weight(scene.populations()["clm"].submodels[0])
    return {"mask": draw_mask(weight, seed=scene.session.options.seed).cpu().numpy()}


def weights(scene: Scene) -> Arrays:
    """All first-layer weights (Fig. 4)."""
    return {name: _numpy(_first_weights(p).flatten(2)) for name, p in scene.populations().items()}


class _SeenEnough(Exception):  # noqa: N818
    """No error: ends a training that was only watched."""


def trajectory(scene: Scene) -> Arrays:
    """One counter-linked and one free weight in all submodels while they are retrained (Fig. 5).

    The first of each in the first filter, read before every similarity examination and at the end
    of what is watched.
    """
    period = scene.session.experiment(scene.dataset).defenses["clm"]["period"]
    mask = torch.from_numpy(masks(scene)["mask"]).flatten()
    places = {"linked": int(mask.int().argmax()), "free": int((~mask).int().argmax())}
    steps: list[int] = []
    seen: dict[str, list[Tensor]] = {name: [] for name in places}
    taken = count()

    def look(submodels: Iterable[nn.Module], step: int) -> None:
        steps.append(step)
        filters = [first_weight(submodel)[0].flatten() for submodel in submodels]
        for name, place in places.items():
            seen[name].append(torch.stack([one[place] for one in filters]).detach().clone())

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
    return {
        "step": np.asarray(steps, np.float32),
        **{name: _numpy(torch.stack(values, dim=1)) for name, values in seen.items()},
    }


def saliency(scene: Scene) -> Arrays:
    """Cosine similarity of saliency maps, for all pairs of submodels (Fig. 6, Eq. 7 and 8)."""
    arrays: Arrays = {}
    for name, population in scene.populations().items():
        cosines = pairwise_cosines(scene.saliency_maps(population))
        quantiles = cosines.quantile(torch.tensor(QUANTILES, device=cosines.device), 1)
        arrays[f"{name} quantiles"] = _numpy(quantiles.T)
        arrays[f"{name} mean"] = _numpy(cosines.mean(1))
        arrays[f"{name} absolute"] = _numpy(cosines.abs().mean(0))
    return arrays


def size(scene: Scene) -> Arrays:
    """The first k submodels deployed alone: under the paper's PGD, and in the worst case.

    The worst case is, image by image, over the cascade and the same PGD.
    """
    arrays: Arrays = {}
    for name, population in scene.populations().items():
        sizes = [k for k in scene.figures.sizes if k <= len(population)]
        arrays["sizes"] = np.asarray(sizes, np.float32)
        claimed, worst = [], []
        for k in sizes:
            part = Population(population.submodels[:k])
            both = [
                Answers(scene.perturb(part, attack, scene.eps)[1]) for attack in (CLAIMED, CASCADE)
            ]
            claimed.append(both[0].s)
            worst.append(metrics.worst_case(both).s)
        arrays[f"{name} claimed s"] = np.asarray(claimed, np.float32)
        arrays[f"{name} worst s"] = np.asarray(worst, np.float32)
    return arrays


def conformity(scene: Scene) -> Arrays:
    """Several CLMs, each with its own ULM: every submodel's accuracy, clean and under PGD."""
    accuracies: dict[str, list[Array]] = {"clean": [], "claimed": []}
    for session, prepared in scene.conforming().values():
        for name, attack, eps in (("clean", "none", 0.0), ("claimed", CLAIMED, scene.eps)):
            record, _ = session.measure(prepared, attack, ThreatModel("Linf", eps))
            accuracies[name].append(record.correct.mean(axis=-1))
    return {
        "seeds": np.asarray(list(scene.conforming()), np.float32),
        **{name: np.asarray(values, np.float32) for name, values in accuracies.items()},
    }


def examples(scene: Scene) -> Arrays:
    """One image of each class under the attacker who knows the CLM, at growing radii."""
    population = scene.populations()["clm"]
    radii = (0.0, *scene.figures.shown_eps)
    labels = scene.labels.cpu()
    columns = [int((labels == label).int().argmax()) for label in labels.unique()]
    images, right, answers = [], [], []
    for eps in radii:
        perturbed, correct = scene.perturb(population, INFORMED if eps else "none", eps)
        shown = perturbed[columns]
        votes = scene.answers(population, shown).mode(0).values
        images.append((shown.clamp(0, 1) * 255).round().byte().cpu().contiguous().numpy())
        right.append(Answers(correct).s[columns])
        answers.append(votes.byte().cpu().numpy())
    return {
        "images": np.stack(images),
        "eps": np.asarray(radii, np.float32),
        "s": np.asarray(right, np.float32),
        "labels": labels[columns].byte().numpy(),
        "answers": np.stack(answers),
    }


def diversity(scene: Scene) -> Arrays:
    """Pairs of submodels as populations of two: how they differ, and what attacks leave of them.

    *Transfer* is the accuracy of one under the paper's PGD on the other, mean of both ways;
    *claimed* MRA under that PGD; *worst* the worst case over it and PGD on the clipped margin of
    both. At a radius below the paper's, where the worst case still differs.
    """
    arrays: Arrays = {}
    eps, images = scene.figures.pair_eps, scene.figures.pair_images
    for name, whole in scene.populations().items():
        population = Population(whole.submodels[: scene.figures.pair_submodels])
        _, carried = scene.perturb(population, CLAIMED, eps, protocol="transfer", count=images)
        outcomes: dict[str, list[float]] = {"transfer": [], "claimed": [], "worst": []}
        for a, b in zip(*evidence.pairs(len(population)), strict=True):
            pair = Population([population.submodels[a], population.submodels[b]])
            _, informed = scene.perturb(pair, INFORMED, eps, count=images)
            through = [carried[source][[a, b]] for source in (a, b)]
            outcomes["transfer"].append(float(np.mean([carried[a, b], carried[b, a]])))
            outcomes["claimed"].append(float(np.mean(through)))
            worst = metrics.worst_case([Answers(one) for one in (informed, *through)])
            outcomes["worst"].append(float(worst.s.mean()))
        for outcome, values in outcomes.items():
            arrays[f"{name} {outcome}"] = np.asarray(values, np.float32)
        arrays[f"{name} measures"] = _differences(scene, population)
    return arrays


def _differences(scene: Scene, population: Population) -> Array:
    """How the submodels of each pair differ, by `leaderboard.paper.evidence.DIVERSITY`."""
    first, second = evidence.pairs(len(population))
    parameters = _first_weights(population).flatten(1)
    noise, _ = scene.perturb(population, "noise", scene.figures.pair_eps)
    rows = [
        1 - pairwise_cosines(scene.saliency_maps(population)).mean(1),
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
    numbers: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    at_eps: bool = False


KINDS: dict[str, Kind] = {
    "masks": Kind(masks),
    "weights": Kind(weights),
    "trajectory": Kind(trajectory, ("watched_epochs",)),
    "saliency": Kind(saliency, ("images",)),
    "size": Kind(size, ("images", "sizes"), (CLAIMED, CASCADE), at_eps=True),
    "conformity": Kind(conformity, ("conformity",), (CLAIMED,), at_eps=True),
    "examples": Kind(examples, ("images", "shown_eps"), (INFORMED,)),
    "diversity": Kind(
        diversity,
        ("images", "pair_submodels", "pair_images", "pair_eps"),
        (CLAIMED, INFORMED),
    ),
}


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
        looked_at |= {f"clm, seed {k}": one for k, (_, one) in scene.conforming().items()}
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
    numbers, budget = asdict(scene.figures), scene.session.experiment(scene.dataset)
    found: dict[str, Any] = {name: numbers[name] for name in kind.numbers}
    if kind.at_eps:
        found["eps"] = scene.eps
    found["submodels"] = {name: len(one.population) for name, one in scene.prepared.items()}
    found["defenses"] = {name: one.parameters for name, one in scene.prepared.items()}
    found["attacks"] = {
        name: {
            "version": ATTACKS[name].version,
            **ATTACKS[name].parameters(budget.attacks.get(name, {})),
        }
        for name in kind.attacks
    }
    return found
