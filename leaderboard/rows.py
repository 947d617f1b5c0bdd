"""Rows of the page: records gathered by what may be ranked together."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from .. import metrics
from ..metrics import Answers, Score
from .records import Case, Facts, Record

# From the least to the most thorough.
BUDGETS = ("smoke", "quick", "paper-short", "paper")


@dataclass(frozen=True, order=True)
class Setting:
    """Rows with the same setting were measured on the same data under the same budget.

    `images` is the budget's number; expensive attacks may have been run on the first of them only.
    """

    dataset: str
    budget: str
    source: str
    sha256: str
    images: int


BySeed = Mapping[int, Record]
Key = TypeVar("Key")
# A label, and the population's records, the newest last.
Population = tuple[str, Sequence[Record]]


@dataclass(frozen=True, eq=False)
class Row:
    """One defense in one setting at one eps, over its training seeds.

    Attributes:
        label: its name, with the parameters in which rows of that name differ.
        measured: the population's records in a norm, at all radii, the newest last.
    """

    label: str
    defense: str
    submodels: int
    eps: float
    measured: Sequence[Record]

    @cached_property
    def by_attack(self) -> dict[str, BySeed]:
        """Records of the deployed population at eps, by attack and seed; "none" is clean."""
        drawn = (r for r in self.measured if r.case.protocol == "draw")
        at_eps = (r for r in drawn if r.case.eps == self.eps or r.case.attack == "none")
        return dict(sorted(_newest(at_eps, lambda c: c.attack).items()))

    @cached_property
    def by_protocol(self) -> dict[str, BySeed]:
        """Records of the other protocols at eps, each under its one attack, by seed."""
        others = (r for r in self.measured if r.case.protocol != "draw")
        return _newest((r for r in others if r.case.eps == self.eps), lambda c: c.protocol)

    @property
    def records(self) -> list[Record]:
        """All records of the row at its eps, the clean ones included."""
        groups = [*self.by_attack.values(), *self.by_protocol.values()]
        return [record for by_seed in groups for record in by_seed.values()]

    def curve(self, attack: str) -> dict[float, BySeed]:
        """An attack's records from clean images, at 0, to its largest eps."""
        wanted = ("draw", "none"), ("draw", attack)
        drawn = (r for r in self.measured if (r.case.protocol, r.case.attack) in wanted)
        return dict(sorted(_newest(drawn, lambda c: c.eps).items()))

    def score(self, attack: str) -> Score | None:
        """Accuracy under one attack, or None where it was not run."""
        return metrics.mean_score(answers(self.by_attack.get(attack, {})))

    def protocol_score(self, protocol: str) -> Score | None:
        """The mean of `correct` under another protocol, or None where it was not run."""
        return metrics.mean_score(answers(self.by_protocol.get(protocol, {})))

    @property
    def known(self) -> Score | None:
        """Accuracy where the attacker sees the draw that answers; of one network the worst case."""
        if self.submodels == self.draws == 1:
            return self.worst
        return self.protocol_score("known" if self.draws > 1 else "alone")

    @property
    def draws(self) -> int:
        """Fresh draws of each member behind a score; 1: members are deterministic."""
        return self.records[0].case.draws

    @cached_property
    def facts(self) -> Facts:
        """Of the defense under the norm: any record of an attack tells them."""
        return max(self.records, key=lambda record: record.case.attack != "none").facts

    def attacks(self, *kinds: str) -> list[str]:
        """The attacks that were run, of some kinds; of none named: all but controls."""
        return [
            attack
            for attack, by_seed in self.by_attack.items()
            for kind in [next(iter(by_seed.values())).facts.attack_kind]
            if (kind in kinds if kinds else kind != "control")
        ]

    @property
    def cascade(self) -> BySeed:
        """Records of the attack that combines others, the newest; empty where it was not run."""
        return next((self.by_attack[attack] for attack in self.attacks("cascade")), {})

    @cached_property
    def claimed_by_seed(self) -> dict[int, Answers]:
        """Each seed's answers under the strongest of the attacks of the defense's authors."""
        run = (answers(self.by_attack[a]) for a in self.facts.claim if a in self.by_attack)

        def selected(by_seed: dict[int, Answers]) -> float:
            return float(np.mean([answers.selected.mean() for answers in by_seed.values()]))

        return min(run, key=selected, default={})

    @cached_property
    def claimed(self) -> Score | None:
        """Accuracy under the strongest of the attacks of the defense's authors."""
        return metrics.mean_score(self.claimed_by_seed)

    @cached_property
    def worst_by_seed(self) -> dict[int, Answers]:
        """Each seed's answers under the best of all attacks, image by image."""
        tried = sorted(self.attacks())
        return worst_case_by_seed({attack: self.by_attack[attack] for attack in tried})

    @cached_property
    def worst(self) -> Score | None:
        """Worst-case accuracy: per image the strongest of all attacks run, selected and scored."""
        return metrics.mean_score(self.worst_by_seed)

    @property
    def worst_images(self) -> int:
        """On how many images the worst case was measured."""
        return next((answers.images for answers in self.worst_by_seed.values()), 0)

    @cached_property
    def best_by_seed(self) -> dict[int, Answers]:
        """(1, N) by seed: the answers of the most robust member, attacked by itself."""
        alone = answers(self.by_protocol.get("alone", {}))
        return {seed: metrics.best_member(members) for seed, members in alone.items()}

    @property
    def best_member(self) -> Score | None:
        """The accuracy of the most robust member, cross-fitted."""
        return metrics.mean_score(self.best_by_seed)

    @property
    def gain(self) -> Score | None:
        """Accuracy under the cascade minus the best member's, on the seeds of both."""
        return metrics.shared_difference(answers(self.cascade), self.best_by_seed)

    @property
    def complete(self) -> bool:
        """Whether all attacks that a rank needs were run on some seed."""
        return bool(set.intersection(*map(set, _required(self.by_attack))))

    @property
    def seeds(self) -> list[int]:
        """The training seeds behind the row."""
        return sorted({s for by_seed in self.by_attack.values() for s in by_seed})

    @property
    def training_seconds(self) -> float:
        """To train a population, without one it starts from, when first measured; over seeds."""
        newest_first = sorted(self.records, key=lambda r: r.measured_at, reverse=True)
        seconds = {r.population_sha256: r.training_seconds for r in newest_first}.values()
        return sum(seconds) / len(seconds)

    @property
    def attack_seconds(self) -> float:
        """To craft all perturbed images of one seed; of each attack and protocol the mean."""
        return sum(map(seconds_a_seed, (*self.by_attack.values(), *self.by_protocol.values())))


def answers(by_seed: BySeed) -> dict[int, Answers]:
    """Each seed's answers."""
    return {seed: record.answers for seed, record in by_seed.items()}


def split_transfer(by_seed: BySeed) -> tuple[dict[int, Answers], dict[int, Answers]]:
    """Of a transfer: answers to images crafted on the same member, and on another."""
    sides: tuple[dict[int, Answers], dict[int, Answers]] = {}, {}
    for seed, record in by_seed.items():
        n, images = record.case.submodels, record.case.images
        pairs, same = record.correct.reshape(n, n, -1, images), np.eye(n, dtype=bool)
        for side, chosen in zip(sides, (same, ~same), strict=True):
            side[seed] = replace(record.answers, correct=pairs[chosen].reshape(-1, images))
    return sides


def seconds_a_seed(by_seed: BySeed) -> float:
    """To craft one seed's images, the mean over seeds."""
    return sum(record.attack_seconds for record in by_seed.values()) / len(by_seed)


def worst_case_by_seed(by_attack: Mapping[str, BySeed]) -> dict[int, Answers]:
    """Each seed's answers under the best of several attacks, image by image.

    Of attacks that were run on all seeds, since a seed with fewer would look more robust.
    """
    return {seed: metrics.worst_case(tried) for seed, tried in tried_by_seed(by_attack).items()}


def tried_by_seed(by_attack: Mapping[str, BySeed]) -> dict[int, list[Answers]]:
    """Each seed's answers under those attacks, on the images that all were run on."""
    seeds = {seed for by_seed in by_attack.values() for seed in by_seed}
    tried = [answers(by_seed) for by_seed in by_attack.values() if by_seed.keys() >= seeds]
    images = min((a.images for by_seed in tried for a in by_seed.values()), default=0)
    return {s: [by_seed[s].first(images) for by_seed in tried] for s in sorted(seeds) if tried}


def settings(records: Iterable[Record]) -> dict[Setting, list[Record]]:
    """Records by setting: the largest budget first, then by dataset."""
    grouped: dict[Setting, list[Record]] = {}
    for record in records:
        case = record.case
        setting = Setting(case.dataset, case.budget, case.source, case.sha256, case.test_images)
        grouped.setdefault(setting, []).append(record)
    return dict(sorted(grouped.items(), key=lambda item: (-budget_rank(item[0].budget), item[0])))


def budget_rank(budget: str) -> int:
    """Higher for a larger budget; an unknown one is below all."""
    return BUDGETS.index(budget) if budget in BUDGETS else -1


def rows(populations: Iterable[Population], norm: str, eps: float) -> list[Row]:
    """A setting's attacked rows at one norm and eps: complete first, by falling worst case.

    Clean images have no eps: their records belong to every row of the same population. Only seeds
    that have all that a rank needs count; while there is none, those with the most attacks.
    """
    attacked = []
    for label, measured in populations:
        # Clean images are the same in every norm.
        fitting = [r for r in measured if r.case.norm == norm or r.case.attack == "none"]
        case = measured[0].case
        row = Row(label, case.defense, case.submodels, eps, fitting)
        seeds = _counted_seeds(row.by_attack)
        row = replace(row, measured=[r for r in fitting if r.case.seed in seeds])
        if row.by_attack.keys() - {"none"}:
            attacked.append(row)
    return sorted(
        attacked, key=lambda r: (not r.complete, -(r.worst.value if r.worst else 0), r.label)
    )


def _newest(records: Iterable[Record], key: Callable[[Case], Key]) -> dict[Key, BySeed]:
    """Records by a key of their cases, then by seed; of several the last."""
    grouped: dict[Key, dict[int, Record]] = {}
    for record in records:
        grouped.setdefault(key(record.case), {})[record.case.seed] = record
    return {**grouped}


def _counted_seeds(drawn: Mapping[str, BySeed]) -> set[int]:
    """The seeds behind a row: a worst case over a seed's few attacks would flatter the defense."""
    complete = set.intersection(*map(set, _required(drawn)))
    if complete:
        return complete
    attacks = Counter(seed for by_seed in drawn.values() for seed in by_seed)
    return {seed for seed, count in attacks.items() if count == max(attacks.values())}


def _required(drawn: Mapping[str, BySeed]) -> list[BySeed]:
    """What a rank needs: clean images, the attacks of the defense's authors, a cascade."""
    records = [record for by_seed in drawn.values() for record in by_seed.values()]
    claim = {a for r in records if r.case.attack != "none" for a in r.facts.claim}
    cascades = {r.case.attack for r in records if r.facts.attack_kind == "cascade"} or {"cascade"}
    return [drawn.get(attack, {}) for attack in sorted({"none", *claim, *cascades})]


def populations(records: Iterable[Record]) -> list[Population]:
    """Records by all that tells populations apart, without superseded ones."""
    ordered = sorted(records, key=lambda record: record.measured_at)
    # Of several the last counts.
    by_seed = {(_identity(r), r.case.seed): _weights(r) for r in ordered}
    by_attack = {(_identity(r), r.case.seed, r.case.attack): r.case.attack_version for r in ordered}
    grouped: dict[str, list[Record]] = {}
    for record in ordered:
        identity, case = _identity(record), record.case
        current = by_seed[identity, case.seed], by_attack[identity, case.seed, case.attack]
        if (_weights(record), case.attack_version) == current:
            grouped.setdefault(identity, []).append(record)
    labels = _labels({identity: measured[0] for identity, measured in grouped.items()})
    return [(labels[identity], measured) for identity, measured in sorted(grouped.items())]


def _identity(record: Record) -> str:
    """What tells populations apart; of code without a version of its own, the newest supersedes."""
    case = record.case
    version = case.defense_version if isinstance(case.defense_version, int) else None
    parts = [case.defense, case.submodels, case.draws, case.probabilities, version]
    return json.dumps([*parts, dict(case.defense_parameters), record.local], sort_keys=True)


def _weights(record: Record) -> tuple[str, int | str]:
    return record.population_sha256, record.case.defense_version


def _labels(records: Mapping[str, Record]) -> dict[str, str]:
    """A label for each population, by identity: the name, and what tells namesakes apart."""
    cases = {identity: record.case for identity, record in records.items()}
    words, labels = {}, {}
    for identity, case in cases.items():
        law = {"draws": case.draws, "probabilities": case.probabilities}
        known = {"version": case.defense_version, **law, **case.defense_parameters}
        words[identity] = [*_words(known)]
    for identity, case in cases.items():
        named = (case.defense, case.submodels)
        namesakes = [words[i] for i, c in cases.items() if (c.defense, c.submodels) == named]
        apart = [w for w in words[identity] if not all(w in others for others in namesakes)]
        apart += ["local"] * records[identity].local
        labels[identity] = f"{case.defense} ({', '.join(apart)})" if apart else case.defense
    return labels


def _words(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _words(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} {value}"
