"""A run of the suite: cases measured, or their records re-used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .. import metrics
from ..attacks import Attack, ThreatModel
from ..leaderboard import CONFIRMED, WITHIN, committed, records
from ..leaderboard.formats import format_score
from ..leaderboard.records import Case, Norm, Protocol, Record
from .case import build_case, entry
from .environment import environment
from .experiment import Experiment
from .measure import measure
from .paths import kept
from .populations import Options, Populations, Prepared

# What bits depend on beside a record's own seeds and the way it was computed.
SAME_BITS = (
    *("device", "processor", "instructions", "threads"),
    *("torch", "torchattacks", "arithmetic"),
)
# So many images a gallery shows.
EXAMPLES = 5


class NoRadiusError(LookupError):
    """A dataset without a radius in the norm; the message says how to name one."""


def ranked_at(
    dataset: str, numbers: Experiment, norm: Norm, named: tuple[float, ...] = ()
) -> tuple[ThreatModel, ...]:
    """The threat models at the radii named, else at the dataset's; NoRadiusError: it has none."""
    radii = named or numbers.radii.get(norm, ())
    if not radii:
        raise NoRadiusError(f"{dataset} has no radius in {norm}: name one with --eps")
    return tuple(ThreatModel(norm, eps) for eps in radii)


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is asked of a record beside its case's answers.

    Attributes:
        folder: where it goes.
        headline, repeat, examples: see `benchmarks.measure.measure`.
    """

    folder: Path
    headline: bool = False
    repeat: bool = False
    examples: int = 0


class Session(Populations):
    """Measures each case once, and decides which record may be re-used.

    Attributes:
        compared: how what was measured agrees with the committed record of its case, by key;
            whoever tells of it empties it.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        # Threads inherit it when they start, so before any does.
        torch.set_flush_denormal(True)
        self._measured: set[Path] = set()
        self.compared: dict[str, str] = {}

    def radii(self, dataset: str) -> tuple[ThreatModel, ...]:
        """The threat models to rank at; NoRadiusError: the dataset has none in the norm."""
        options = self.options
        return ranked_at(dataset, self.experiment(dataset), options.norm, options.eps)

    def sweep(self, dataset: str) -> tuple[ThreatModel, ...]:
        """The threat models of a curve, by radius, those to rank at among them."""
        norm = self.options.norm
        further = self.experiment(dataset).sweep_radii.get(norm, ())
        radii = {*further, *(model.eps for model in self.radii(dataset))}
        return tuple(ThreatModel(norm, eps) for eps in sorted(radii))

    def measure(
        self, prepared: Prepared, attack: str, at: ThreatModel, protocol: Protocol = "draw"
    ) -> tuple[Record, bool]:
        """Attack a population; return its record, and whether it was on disk already.

        A record is re-used when it was measured on these very weights: by this run, or by an
        earlier one unless this run trained them (a first run measures everything itself).
        """
        case = self.case(prepared, attack, at, protocol)
        return self.measure_case(prepared, case, self.extras(prepared, attack, at, protocol))

    def await_population(self, dataset: str, defense: str) -> Prepared:
        """A population as `measure` takes it: workers may hold its members."""
        return self.prepare(dataset, defense)

    def extras(
        self, prepared: Prepared, attack: str, at: ThreatModel, protocol: Protocol = "draw"
    ) -> Extras:
        """What the record of a ranked case, or of a point of a curve, has."""
        radii = self.radii(prepared.dataset.name)
        headline = attack == "none" or at in radii
        chosen = entry(attack, protocol)
        pictured = chosen.kind == "cascade" and protocol == "draw" and at == radii[0]
        return Extras(
            folder=self.options.results,
            headline=headline,
            # One attack on the population, a strong and quick one.
            repeat=headline and chosen.swept and chosen.kind == "population",
            examples=EXAMPLES if pictured else 0,
        )

    def case(
        self, prepared: Prepared, attack: str, at: ThreatModel, protocol: Protocol = "draw"
    ) -> Case:
        """The case of an attack under the budget's numbers; see `build_case`."""
        return build_case(
            self.subject(prepared),
            attack,
            at,
            self.experiment(prepared.dataset.name),
            protocol=protocol,
            budget=self.options.budget,
            seed=self.options.seed,
        )

    def measure_case(
        self, prepared: Prepared, case: Case, extras: Extras, *, attack: Attack | None = None
    ) -> tuple[Record, bool]:
        """The same for any case of a population.

        Args:
            attack: see `benchmarks.measure.measure`.
        """
        options, subject = self.options, self.subject(prepared)
        plan = self.plan(prepared.population, subject.images)
        about = environment(options.device)
        bits = "".join([prepared.sha256, *(about[name] for name in SAME_BITS), str(plan)])
        key = f"{case.key}-{hashlib.sha256(bits.encode()).hexdigest()[:12]}"
        with self.store.unfinished(key) as blocks:
            record = self.reusable(prepared, case, extras)
            reused = record is not None
            if record is None:
                found = self.preflight(prepared.defense, prepared.population, prepared.dataset)
                ready = found.ready(prepared.population)
                record, _ = measure(
                    case,
                    replace(subject, population=ready, findings=found.findings),
                    headline=extras.headline,
                    attack=attack,
                    repeat=extras.repeat,
                    examples=extras.examples,
                    plan=plan,
                    blocks=blocks,
                )
                self.keep(record, extras.folder)
            if blocks:
                blocks.discard()
        return record, reused

    def reusable(
        self, prepared: Prepared, case: Case, extras: Extras, *, look: bool = False
    ) -> Record | None:
        """The record of a case if it may be re-used, a headline if it is to be one.

        An old record may lack examples.

        Args:
            look: write nothing, and leave unusable files where they are.
        """
        path = extras.folder / f"{case.key}.json"
        fresh = (self.options.rerun or prepared.trained) and path not in self._measured
        known = [*kept(path, records.read, look=look)]
        # A point of a curve lacks the repetition that a ranked one needs.
        reusable = (
            record
            for record in known
            if record.population_sha256 == prepared.sha256
            and not (extras.repeat and record.repeatable is None)
        )
        record = None if fresh else next(reusable, None)
        if record and extras.headline and not record.headline and not look:
            record = replace(record, headline=True)
            records.write(record, extras.folder)
        return record

    def keep(self, record: Record, folder: Path) -> None:
        """Write a record that this run measured."""
        path = records.write(record, folder)
        self._measured.add(path)
        if (beside := committed(path)) and beside.exists():
            self.compared[record.case.key] = agreement(record, records.read(beside))


def agreement(record: Record, earlier: Record) -> str:
    """`CONFIRMED` by the same answers, `WITHIN` where accuracies may be equal, else both of them.

    By the interval of their paired difference.
    """
    if np.array_equal(record.correct, earlier.correct):
        return CONFIRMED
    difference = metrics.difference({0: record.answers}, {0: earlier.answers})
    if difference.low <= 0 <= difference.high:
        return WITHIN
    return f"{format_score(record.score)} in place of {format_score(earlier.score)}"
