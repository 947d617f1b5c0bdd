"""Populations of a run: trained, or loaded from the store or from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..attacks.seeding import derive_seed
from ..attacks.threat_model import Norm, ThreatModel
from ..defenses import DEFENSES, Defense, Population, Task
from ..defenses.surrogate import Plan, alike
from ..defenses.training import BeforeStep, Recipe, initialise
from ..metrics import Answers
from .case import Subject
from .datasets import (
    DATASETS,
    Dataset,
    DatasetEntry,
    DatasetMissingError,
    experiment,
    load,
)
from .experiment import Experiment, Variation
from .measure import answers_of
from .paths import RELEASED
from .preflight import (
    OTHER,
    Preflight,
    answers_of_each,
    check_answers,
    check_kept,
    preflight,
)
from .store import FileCheckpoint, Store, weights_sha256
from .tuning import fastest_plan


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run; see `pytest --help`.

    Attributes:
        norm: that defenses are attacked in.
        eps: radii to rank at in place of the budget's, or empty.
        submodels: n in place of the budget's (a defense of one member stays one), or None.
        run: identifies the run, the same for all its processes.
        plan: how to compute; None: as is fastest on this machine.
    """

    data_root: Path
    store: Path
    results: Path
    run: str
    budget: str = "quick"
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    seed: int = 0
    rerun: bool = False
    retrain: bool = False
    norm: Norm = "Linf"
    eps: tuple[float, ...] = ()
    submodels: int | None = None
    plan: Plan | None = None


class DefenseError(RuntimeError):
    """A defense that broke its contract; the message names it and says how."""


@contextmanager
def _named(defense: str) -> Iterator[None]:
    """Turn a refusal into a DefenseError."""
    try:
        yield
    except ValueError as error:
        raise DefenseError(f"defense {defense!r}: {error}") from error


@dataclass(frozen=True)
class Prepared:
    """A population ready to be attacked.

    Attributes:
        parameters: what it was made with, the recipe included.
        folder: its own, in the store; None: its members were loaded from elsewhere.
        trained: whether this run trained it, rather than loaded it.
        layout: of weights and images in memory.
    """

    population: Population
    dataset: Dataset
    defense: str
    parameters: dict[str, Any]
    folder: Path | None
    sha256: str
    training_seconds: float
    trained: bool
    layout: torch.memory_format = torch.channels_last


class Populations:
    """Trains or loads; holds the dataset in use, everything else is on disk.

    Attributes:
        trained: names of the stored populations that this process trained.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = Store(options.store, None if options.retrain else RELEASED)
        self.trained: list[str] = []
        self._dataset: Dataset | None = None
        self._missing: dict[str, DatasetMissingError] = {}
        self._preflights: WeakKeyDictionary[Population, Preflight] = WeakKeyDictionary()

    def experiment(self, dataset: str) -> Experiment:
        """The budget's numbers for a dataset."""
        return experiment(self.options.budget, dataset)

    def dataset(self, name: str) -> Dataset:
        """A dataset on the CPU, the last one used kept in memory; DatasetError: unusable."""
        if name in self._missing:
            raise self._missing[name]
        if self._dataset is None or self._dataset.name != name:
            self._dataset = None
            numbers = self.experiment(name)
            try:
                sizes = numbers.train_images, numbers.test_images
                self._dataset = load(name, self.options.data_root, *sizes)
            except DatasetMissingError as error:
                self._missing[name] = error
                raise
        return self._dataset

    def subject(self, prepared: Prepared) -> Subject:
        """A population with the dataset's test images, on the device, and the facts of both."""
        data, defense = prepared.dataset, DEFENSES[prepared.defense]
        device = self.options.device
        return Subject(
            population=prepared.population,
            images=data.test_images.to(device, memory_format=prepared.layout),
            labels=data.test_labels.to(device),
            dataset=data.name,
            source=data.source,
            sha256=data.sha256,
            classes=data.classes,
            eps_unit=DATASETS[data.name].eps_unit,
            defense=prepared.defense,
            defense_version=defense.version,
            defense_parameters=prepared.parameters,
            random=defense.random,
            reference=defense.reference,
            claim=defense.claim,
            population_sha256=prepared.sha256,
            training_seconds=prepared.training_seconds,
        )

    def prepare(self, dataset: str, defense: str) -> Prepared:
        """Load a population from the store or its checkpoint, or train it and keep it there."""
        chosen = DEFENSES[defense]
        if chosen.load is None:
            return self.prepare_varied(dataset, Variation(defense=defense))
        data, arguments = self.dataset(dataset), self.experiment(dataset).arguments(defense)
        try:
            members = chosen.load(self._entry(dataset), **arguments)
            population = self._population(dataset, chosen, members)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DefenseError(f"defense {defense!r} cannot be loaded: {error}") from error
        if len(population) != chosen.members:
            raise DefenseError(
                f"defense {defense!r} loaded {len(population)} networks, but is registered with "
                f"members={chosen.members}"
            )
        self._check_contract(defense, population, data)
        layout, sha256 = self._laid_out(population, data), weights_sha256(population)
        facts = defense, arguments, None, sha256, 0.0
        return Prepared(population, data, *facts, trained=False, layout=layout)

    def prepare_varied(
        self, dataset: str, variation: Variation, *, member: int | None = None
    ) -> Prepared:
        """The same where it is trained otherwise than the budget says.

        Args:
            member: train this one alone, of independent ones; where each has been trained so, the
                whole population is put together of them.

        Raises:
            LookupError: unknown dataset or defense.
            DatasetError: the data is missing or unusable.
            DefenseError: the defense broke its contract; nothing is stored.
            StoreError: the store cannot be used.
            OSError: the store cannot be written to.
        """
        data, defense = self.dataset(dataset), variation.defense
        start = self.prepare_varied(dataset, variation.start) if variation.start else None
        arguments, recipe, parameters = self._parameters(data, variation, start)
        identity, folder = self._stored(data, defense, parameters, member)
        population = self._untrained(dataset, defense, member)
        parts = self.parts(data, defense, parameters) if member is None else []

        def train(checkpoint: FileCheckpoint) -> None:
            task = self._task(data, population, recipe, checkpoint)
            task = replace(
                task,
                images=task.images[: variation.images],
                labels=task.labels[: variation.images],
                in_turn=variation.in_turn,
                first=member or 0,
            )
            if start and start.folder:
                population.load_state_dict(start.population.state_dict())
                checkpoint.parents[start.folder.name] = start.sha256
                # Other batches than before.
                task = replace(task, seed=derive_seed(task.seed, start.folder.name))
            DEFENSES[defense].run_training(population, task, arguments)

        with self.store.lock(folder):
            valid = partial(self._still_valid, dataset=dataset, start=start)
            card = self.store.load_into(population, folder, keep=valid)
            if card is None:
                # Before hours are spent on it as well as after.
                self._check_contract(defense, population, data, finished=False)
                every_epoch = self.experiment(dataset).keeps_every_epoch(defense)
                checkpoint = FileCheckpoint(folder, every_epoch=every_epoch)
                seconds = self.store.join(population, folder, parts, keep=valid)
                if seconds is None:
                    train(checkpoint)
                    seconds = checkpoint.seconds
                self._check_contract(defense, population.eval(), data)
                with _named(defense):
                    some, _ = self._test_images(data, 4)
                    check_kept(population, self._untrained(dataset, defense, member), some)
                card = self.store.save(
                    population,
                    folder,
                    identity=identity,
                    seconds=seconds,
                    parents=checkpoint.parents,
                    run=self.options.run,
                    metrics={"clean_mra": self._clean_accuracy(population, data)},
                )
                self.store.remove(parts)
                if member is None:
                    self.trained.append(folder.name)
        layout, trained = self._laid_out(population, data), card["run"] == self.options.run
        facts = defense, parameters, folder, card["weights_sha256"], card["training_seconds"]
        return Prepared(population, data, *facts, trained=trained, layout=layout)

    def planned(self, dataset: str, defense: str) -> Prepared:
        """What `prepare` would return, but for members and weights; nothing is trained or loaded.

        The digest is empty where the store has no valid population.
        """
        chosen, data = DEFENSES[defense], self.dataset(dataset)
        members = [nn.Identity()] * self._size(dataset, defense)
        draws = min(chosen.draws, self.experiment(dataset).draws)
        prepared = Prepared(
            Population(members, probabilities=chosen.probabilities, draws=draws),
            data,
            defense,
            parameters=self.experiment(dataset).arguments(defense),
            folder=None,
            sha256="",
            training_seconds=0.0,
            trained=False,
            layout=torch.contiguous_format,
        )
        if chosen.load:
            return prepared
        *_, parameters = self._parameters(data, Variation(defense=defense))
        folder = self._stored(data, defense, parameters)[1]
        prepared = replace(prepared, parameters=parameters, folder=folder)
        card = self.store.card(folder)
        if card is None or (self.options.retrain and card["run"] != self.options.run):
            return prepared
        for parent, sha256 in card["parents"].items():
            if self.planned(dataset, parent).sha256 != sha256:
                return prepared
        facts = {"sha256": card["weights_sha256"], "training_seconds": card["training_seconds"]}
        return replace(prepared, **facts, trained=card["run"] == self.options.run)

    def apart(self, dataset: str, defense: str) -> Plan | None:
        """How to compute with members that are trained apart, with the bits of a serial training.

        None: they are not independent, or go through a stack, whose sums have another order; or
        their training has begun.
        """
        prepared = self.planned(dataset, defense)
        begun = prepared.folder is None or (prepared.folder / "checkpoint.safetensors").exists()
        if begun or prepared.sha256 or not DEFENSES[defense].independent:
            return None
        images = self.dataset(dataset).train_images[:1].to(self.options.device)
        plan = self.plan(self._untrained(dataset, defense), images)
        return None if plan.stacked else plan

    def parts(self, data: Dataset, defense: str, parameters: dict[str, Any]) -> list[Path]:
        """Where the members of a population lie that are trained apart, if they may be."""
        members = range(self._size(data.name, defense) * DEFENSES[defense].independent)
        return [self._stored(data, defense, parameters, member)[1] for member in members]

    def use(self, dataset: Dataset) -> None:
        """Take a dataset for the one in use."""
        self._dataset = dataset

    def with_plan(self, plan: Plan | None) -> Self:
        """The same run where it computes otherwise."""
        other = type(self)(replace(self.options, plan=plan))
        other._dataset, other.trained = self._dataset, self.trained
        return other

    def _parameters(
        self, data: Dataset, variation: Variation, start: Prepared | None = None
    ) -> tuple[dict[str, Any], Recipe, dict[str, Any]]:
        """A defense's arguments, its recipe, and what a record says of both."""
        numbers, defense = self.experiment(data.name), variation.defense
        arguments = numbers.arguments(defense) | dict(variation.changes)
        recipe = replace(numbers.recipe(defense), **variation.recipe)
        images = len(data.train_images[: variation.images])
        parameters: dict[str, Any] = {**arguments, "recipe": recipe.facts(), "train_images": images}
        if numbers.network:
            parameters["network"] = numbers.network.__name__
        if variation.in_turn:
            parameters["in_turn"] = True
        if start and start.folder:
            parameters["start"] = start.folder.name
        return arguments, recipe, parameters

    def _stored(
        self, data: Dataset, defense: str, parameters: dict[str, Any], member: int | None = None
    ) -> tuple[dict[str, Any], Path]:
        """What names a population, or one of its members alone, and its folder in the store."""
        identity = {
            "dataset": data.name,
            # Not of so many test images as are there or are used.
            "sha256": data.train_sha256 if data.in_order else data.sha256,
            "defense": defense,
            "version": DEFENSES[defense].version,
            "submodels": self._size(data.name, defense),
            "seed": self.options.seed,
            **parameters,
        }
        name = f"{data.name}-{defense}-s{self.options.seed}"
        if member is not None:
            identity["member"] = member
            name += f"-m{member}"
        return identity, self.store.folder(name, identity)

    def after_epochs(self, prepared: Prepared) -> list[Prepared]:
        """A population after each epoch, the last included; StoreError: it was not kept so."""
        epochs = prepared.parameters["recipe"]["epochs"]
        dataset, defense = prepared.dataset.name, prepared.defense
        populations = [self._untrained(dataset, defense) for _ in range(epochs)]
        if prepared.folder:
            self.store.load_epochs(populations, prepared.folder)
        # The last is the population itself.
        return [
            replace(
                prepared,
                population=population.to(memory_format=prepared.layout),
                parameters={**prepared.parameters, "after_epoch": epoch},
                sha256=weights_sha256(population),
            )
            for epoch, population in enumerate(populations[:-1], start=1)
        ] + [prepared]

    def watch_training(self, dataset: str, defense: str, observe: BeforeStep) -> Population:
        """Train a population once more, as it was trained, and keep nothing.

        Args:
            observe: see `Task`; what it raises ends the training.

        Returns:
            The population, in evaluation mode; the same as from `prepare`.
        """
        data, population = self.dataset(dataset), self._untrained(dataset, defense)
        task = self._task(data, population, self.experiment(dataset).recipe(defense))
        task = replace(task, observe=observe)
        DEFENSES[defense].run_training(
            population, task, self.experiment(dataset).arguments(defense)
        )
        return population.eval()

    def _laid_out(self, population: Population, data: Dataset) -> torch.memory_format:
        """Lay weights out as is fastest, on CPUs and GPUs, if networks then answer as before."""
        images, _ = self._test_images(data, 2)
        layout = torch.channels_last
        with suppress(RuntimeError):
            first, second = (answers_of_each(population, images) for _ in range(2))
            population.to(memory_format=layout)
            after = answers_of_each(population, images.to(memory_format=layout))
            # Of members that keep generators of their own, two passes cannot be compared.
            if alike(first, after, OTHER) or not alike(first, second):
                return layout
        population.to(memory_format=torch.contiguous_format)
        return torch.contiguous_format

    def plan(self, population: Population, images: Tensor) -> Plan:
        """How to compute with a population on such images."""
        return self.options.plan or fastest_plan(population, images)

    def _entry(self, dataset: str) -> DatasetEntry:
        """A dataset's facts, with the budget's network."""
        entry = DATASETS[dataset]
        return replace(entry, network=self.experiment(dataset).network or entry.network)

    def _untrained(self, dataset: str, defense: str, member: int | None = None) -> Population:
        """A population as it is built, or one of its members alone."""
        chosen, data = DEFENSES[defense], self._entry(dataset)
        size = self._size(dataset, defense)
        build = chosen.build or type(data).standard_network
        built = initialise(lambda: build(data), size, seed=self.options.seed)
        population = self._population(dataset, chosen, built.submodels)
        return population if member is None else population.of([population.submodels[member]])

    def _size(self, dataset: str, defense: str) -> int:
        chosen = DEFENSES[defense]
        return chosen.members or self.options.submodels or self.experiment(dataset).size(defense)

    def _population(
        self, dataset: str, defense: Defense, members: Iterable[nn.Module]
    ) -> Population:
        """Members under the law of their defense, on the device."""
        draws = min(defense.draws, self.experiment(dataset).draws)
        population = Population(members, probabilities=defense.probabilities, draws=draws)
        return population.to(self.options.device)

    def _task(
        self,
        data: Dataset,
        population: Population,
        recipe: Recipe,
        checkpoint: FileCheckpoint | None = None,
    ) -> Task:
        """A training task; its checkpoint notes the digests of what it starts from."""

        def start_from(defense: str) -> Population:
            parent = self.prepare(data.name, defense)
            if checkpoint:
                checkpoint.starts_from(defense, parent.sha256)
            return parent.population

        images = data.train_images.to(self.options.device)
        return Task(
            images=images,
            labels=data.train_labels.to(self.options.device),
            recipe=recipe,
            seed=self.options.seed,
            load=start_from,
            checkpoint=checkpoint,
            plan=self.plan(population, images[:1]),
        )

    def preflight(self, defense: str, population: Population, data: Dataset) -> Preflight:
        """What was found of a finished population, looked at once; DefenseError: it is refused."""
        if population not in self._preflights:
            plan, numbers = self.options.plan, self.experiment(data.name)
            norm = self.options.norm
            eps = max(self.options.eps or numbers.radii[norm])
            with _named(defense):
                self._preflights[population] = preflight(
                    population,
                    *self._test_images(data),
                    batch_size=numbers.batch_size,
                    threat_model=ThreatModel(norm, eps),
                    plan=plan,
                    expected=data.classes,
                )
        return self._preflights[population]

    def _check_contract(
        self, defense: str, population: Population, data: Dataset, *, finished: bool = True
    ) -> None:
        """Refuse changed data, and a population that cannot be scored, with a DefenseError."""
        if not data.unchanged():
            self._dataset = None
            raise DefenseError(
                f"defense {defense!r} changed the training images or labels it was given; "
                "let it work on a copy"
            )
        if finished:
            self.preflight(defense, population, data)
            return
        with _named(defense):
            check_answers(population, *self._test_images(data), expected=data.classes)

    def _clean_accuracy(self, population: Population, data: Dataset) -> float:
        """Expected accuracy on the first thousand clean test images."""
        seed = derive_seed(self.options.seed, "clean accuracy")
        images, batch_size = self._test_images(data, 1000), self.experiment(data.name).batch_size
        correct = answers_of(population, *images, seed=seed, batch_size=batch_size).numpy()
        law, draws = population.probabilities, population.draws
        return float(Answers(correct, probabilities=law, draws=draws).s.mean())

    def _test_images(self, data: Dataset, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The first test images and their labels, on the device."""
        device = self.options.device
        return data.test_images[:count].to(device), data.test_labels[:count].to(device)

    def _still_valid(self, card: dict[str, Any], dataset: str, start: Prepared | None) -> bool:
        """Whether a stored population may be used, by its card.

        Not with `--retrain`, unless this run trained it; and not when a population it was trained
        from has other weights by now.
        """
        if self.options.retrain and card["run"] != self.options.run:
            return False
        now = {start.folder.name: start.sha256} if start and start.folder else {}
        return all(
            (now.get(parent) or self.prepare(dataset, parent).sha256) == sha256
            for parent, sha256 in card["parents"].items()
        )
