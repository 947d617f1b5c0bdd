"""A run of the suite: populations trained or loaded, cells measured or re-used."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks import ATTACKS, ThreatModel
from attacks.seeding import derive_seed
from benchmarks import budgets, datasets
from benchmarks.budgets import Variation
from benchmarks.evaluation import check_answers
from benchmarks.measurement import measure_cell, must_repeat
from benchmarks.paths import RELEASED
from benchmarks.store import FileCheckpoint, Store
from benchmarks.tuning import fastest_plan
from defenses import DEFENSES, Population, Task
from defenses.architectures import cifar_resnet18, lenet5
from defenses.stacking import ARITHMETIC
from defenses.surrogate import Plan
from defenses.training import BeforeStep, initialise
from leaderboard import records
from leaderboard.evidence import ADVERSARIAL
from leaderboard.files import set_aside
from leaderboard.records import Cell, Record, RecordError

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line resolved to; see `pytest --help`.

    Attributes:
        eps: radii to rank at in place of the budget's, or empty.
        submodels: n in place of the budget's (`single` stays single), or None.
        images_per_draw: consecutive images that share a drawn surrogate.
        clm_from_scratch: train `clm` from scratch instead of from `ulm`.
        run: identifies the run, the same for all its processes.
        plan: how to compute; None: as is fastest on this machine.
    """

    data_root: Path
    store: Path
    results: Path
    run: str
    budget: str = "quick"
    device: torch.device = CPU
    seed: int = 0
    rerun: bool = False
    retrain: bool = False
    eps: tuple[float, ...] = ()
    submodels: int | None = None
    images_per_draw: int = 1
    clm_from_scratch: bool = False
    plan: Plan | None = None


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` stands for on this machine.

    Raises:
        ValueError: the machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, there in present.items() if there), "cpu")
    if not present.get(name, True):
        raise ValueError(f"device {name!r} is not available on this machine; use auto or cpu")
    return torch.device(name)


class DefenseError(RuntimeError):
    """A defense that broke its contract; the message names it and says how."""


@dataclass(frozen=True)
class Prepared:
    """A population ready to be attacked.

    Attributes:
        parameters: what it was made with, the recipe included.
        folder: its own, in the store.
        trained: whether this run trained it, rather than loaded it.
    """

    population: Population
    dataset: datasets.Dataset
    defense: str
    parameters: dict[str, Any]
    folder: Path
    sha256: str
    training_seconds: float
    trained: bool


class Session:
    """Holds the options and the dataset in use; everything else is on disk.

    Attributes:
        trained: names of the stored populations that this process trained.
    """

    def __init__(self, options: Options) -> None:
        # Confident networks have subnormal gradients, which CPUs compute many times slower.
        torch.set_flush_denormal(True)
        self.options = options
        self.store = Store(options.store, None if options.retrain else RELEASED)
        self.trained: list[str] = []
        self._dataset: datasets.Dataset | None = None
        self._missing: dict[str, datasets.DatasetMissingError] = {}
        self._measured: set[Path] = set()

    def experiment(self, dataset: str) -> budgets.Experiment:
        """The budget's numbers for a dataset."""
        return budgets.experiment(self.options.budget, dataset)

    def dataset(self, name: str) -> datasets.Dataset:
        """A dataset on the CPU; the last one used is kept in memory.

        Raises:
            DatasetError: missing or unusable.
        """
        if name in self._missing:
            raise self._missing[name]
        if self._dataset is None or self._dataset.name != name:
            self._dataset = None
            numbers = self.experiment(name)
            try:
                self._dataset = datasets.load(
                    name, self.options.data_root, numbers.train_images, numbers.test_images
                )
            except datasets.DatasetMissingError as error:
                self._missing[name] = error
                raise
        return self._dataset

    def prepare(self, dataset: str, defense: str) -> Prepared:
        """Load a population from the store, or train it and keep it there.

        Raises:
            As `prepare_varied`.
        """
        return self.prepare_varied(dataset, Variation(defense=defense))

    def prepare_varied(self, dataset: str, variation: Variation) -> Prepared:
        """The same for a population trained otherwise than the budget says.

        Raises:
            LookupError: unknown dataset or defense.
            DatasetError: the data is missing or unusable.
            DefenseError: the defense broke its contract; nothing is stored.
            StoreError: the store cannot be used.
            OSError: the store cannot be written to.
        """
        data = self.dataset(dataset)
        defense = variation.defense
        chosen = DEFENSES[defense]
        arguments = self._arguments(dataset, defense) | dict(variation.changes)
        recipe = replace(self.experiment(dataset).recipe(defense), **variation.recipe)
        images = len(data.train_images[: variation.images])
        parameters: dict[str, Any] = {**arguments, "recipe": asdict(recipe), "train_images": images}
        if variation.in_turn:
            parameters["in_turn"] = True
        start = self.prepare_varied(dataset, variation.start) if variation.start else None
        if start:
            parameters["start"] = start.folder.name
        population = self._untrained(data, defense)
        identity = {
            "dataset": dataset,
            "sha256": data.sha256,
            "defense": defense,
            "version": chosen.version,
            "submodels": len(population),
            "seed": self.options.seed,
            **parameters,
        }
        folder = self.store.folder(f"{dataset}-{defense}-s{self.options.seed}", identity)

        with self.store.lock(folder):
            card = self.store.load_into(population, folder, keep=self._still_valid(dataset, start))
            if card is None:
                # Before hours are spent on it as well as after.
                self._check_contract(defense, population, data)
                parents: dict[str, str] = {}
                checkpoint = FileCheckpoint(
                    folder,
                    parents,
                    every_epoch=(self.experiment(dataset).every_epoch and defense in ADVERSARIAL),
                )

                def load(other: str) -> Population:
                    parent = self.prepare(dataset, other)
                    parents[other] = parent.sha256
                    return parent.population

                task = self._task(data, defense, population, load, checkpoint=checkpoint)
                task = replace(
                    task,
                    images=task.images[:images],
                    labels=task.labels[:images],
                    recipe=recipe,
                    in_turn=variation.in_turn,
                )
                if start:
                    population.load_state_dict(start.population.state_dict())
                    parents[start.folder.name] = start.sha256
                    # Other batches than before.
                    task = replace(task, seed=derive_seed(task.seed, start.folder.name))
                chosen.train(population, task, **arguments)
                self._check_contract(defense, population, data)
                card = self.store.save(
                    population,
                    folder,
                    identity=identity,
                    seconds=checkpoint.seconds,
                    parents=parents,
                    run=self.options.run,
                    metrics={"clean_mra": self._clean_mra(population, data)},
                )
                self.trained.append(folder.name)
        return Prepared(
            # Convolutions are faster with the channels last, on CPUs and on GPUs.
            population=population.to(memory_format=torch.channels_last),
            dataset=data,
            defense=defense,
            parameters=parameters,
            folder=folder,
            sha256=card["weights_sha256"],
            training_seconds=card["training_seconds"],
            trained=card["run"] == self.options.run,
        )

    def after_epochs(self, prepared: Prepared) -> list[Population]:
        """What an adversarially trained population was after each epoch, the last included.

        Raises:
            StoreError: the store does not have it.
        """
        epochs = prepared.parameters["recipe"]["epochs"]
        found = [self._untrained(prepared.dataset, prepared.defense) for _ in range(epochs)]
        self.store.load_epochs(found, prepared.folder)
        return [population.to(memory_format=torch.channels_last) for population in found]

    def _arguments(self, dataset: str, defense: str) -> dict[str, Any]:
        """The keyword arguments that a defense is trained with."""
        overrides = dict(self.experiment(dataset).defenses.get(defense, {}))
        if defense == "clm":
            overrides["from_scratch"] = self.options.clm_from_scratch
        return DEFENSES[defense].parameters(overrides)

    def _untrained(self, data: datasets.Dataset, defense: str) -> Population:
        size = self.experiment(data.name).population_size(defense)
        if self.options.submodels and size > 1:
            size = self.options.submodels
        build = DEFENSES[defense].build or (cifar_resnet18 if data.channels == 3 else lenet5)
        population = initialise(
            lambda: build(data.channels, data.classes), size, seed=self.options.seed
        )
        return population.to(self.options.device)

    def _task(
        self,
        data: datasets.Dataset,
        defense: str,
        population: Population,
        load: Callable[[str], Population],
        *,
        checkpoint: FileCheckpoint | None = None,
        observe: BeforeStep | None = None,
    ) -> Task:
        device = self.options.device
        return Task(
            images=data.train_images.to(device),
            labels=data.train_labels.to(device),
            recipe=self.experiment(data.name).recipe(defense),
            seed=self.options.seed,
            load=load,
            checkpoint=checkpoint,
            plan=self.plan(population, data.train_images[:1].to(device)),
            observe=observe,
        )

    def watch_training(self, dataset: str, defense: str, observe: BeforeStep) -> Population:
        """Train a population once more, as it was trained, and keep nothing.

        Args:
            observe: called with (submodels, members, epoch, step) before each step; what it
                raises ends the training.

        Returns:
            The population, in evaluation mode; the same as from `prepare`.

        Raises:
            As `prepare`.
        """
        data = self.dataset(dataset)
        population = self._untrained(data, defense)

        def load(other: str) -> Population:
            return self.prepare(dataset, other).population

        task = self._task(data, defense, population, load, observe=observe)
        DEFENSES[defense].train(population, task, **self._arguments(dataset, defense))
        return population.eval()

    def plan(self, population: Population, images: Tensor) -> Plan:
        """How to compute with a population on such images."""
        return self.options.plan or fastest_plan(population, images)

    def _check_contract(self, defense: str, population: Population, data: datasets.Dataset) -> None:
        """Refuse what a defense must not build, and its training function not leave behind.

        Raises:
            DefenseError: changed data, or a population that cannot be scored.
        """
        population.eval()
        if not data.unchanged():
            self._dataset = None
            raise DefenseError(
                f"defense {defense!r} changed the training images or labels it was given; "
                "let it work on a copy"
            )
        device = self.options.device
        try:
            check_answers(population, data.test_images.to(device), data.test_labels.to(device))
        except ValueError as error:
            raise DefenseError(f"defense {defense!r}: {error}") from error

    def _clean_mra(self, population: Population, data: datasets.Dataset) -> float:
        """MRA on the first thousand clean test images."""
        first = slice(1000)
        device, batch_size = self.options.device, self.experiment(data.name).batch_size
        images, labels = data.test_images[first].to(device), data.test_labels[first].to(device)
        return population.correct(images, labels, batch_size=batch_size).float().mean().item()

    def _still_valid(
        self, dataset: str, start: Prepared | None
    ) -> Callable[[dict[str, Any]], bool]:
        """Whether a stored population may be used, by its card.

        Not with `--retrain`, unless this run trained it; and not when a population it was trained
        from has other weights by now.
        """

        def valid(card: dict[str, Any]) -> bool:
            if self.options.retrain and card["run"] != self.options.run:
                return False
            now = {start.folder.name: start.sha256} if start else {}
            return all(
                (now.get(parent) or self.prepare(dataset, parent).sha256) == sha256
                for parent, sha256 in card["parents"].items()
            )

        return valid

    def radii(self, dataset: str) -> tuple[float, ...]:
        """The Linf radii to rank at."""
        return self.options.eps or self.experiment(dataset).eps

    def measure(
        self, prepared: Prepared, attack: str, eps: float, protocol: str = "draw"
    ) -> tuple[Record, bool]:
        """Attack a population at one radius; return its record, and whether it was on disk already.

        A record is re-used when it was measured on these very weights: by this run, or by an
        earlier one unless this run trained them (a first run measures everything itself).
        """
        data, options = prepared.dataset, self.options
        numbers = self.experiment(data.name)
        chosen = ATTACKS[attack]
        threat_model = ThreatModel("Linf", 0.0 if attack == "none" else eps)
        parameters = chosen.parameters(numbers.attacks.get(attack, {}))
        if protocol == "doubled":
            parameters = budgets.doubled(parameters)
        count = min(
            numbers.images(attack, protocol) or len(data.test_images), len(data.test_images)
        )
        headline = attack == "none" or eps in self.radii(data.name)
        cell = Cell(
            dataset=data.name,
            source=data.source,
            sha256=data.sha256,
            test_images=len(data.test_images),
            images=count,
            classes=data.classes,
            defense=prepared.defense,
            defense_version=DEFENSES[prepared.defense].version,
            defense_parameters=prepared.parameters,
            submodels=len(prepared.population),
            attack=attack,
            attack_version=chosen.version,
            attack_parameters=parameters,
            norm=threat_model.norm,
            eps=threat_model.eps,
            images_per_draw=options.images_per_draw,
            batch_size=numbers.batch_size,
            protocol=protocol,
            budget=options.budget,
            seed=options.seed,
        )
        path = options.results / f"{cell.key}.json"
        fresh = (options.rerun or prepared.trained) and path not in self._measured
        images = data.test_images[:count].to(options.device, memory_format=torch.channels_last)
        labels = data.test_labels[:count].to(options.device)
        plan = self.plan(prepared.population, images)
        about = {**environment(options.device), "computation": str(plan)}
        on = (about[name] for name in ("device", "torch", "arithmetic", "computation"))
        bits = "".join([prepared.sha256, *on])
        key = f"{cell.key}-{hashlib.sha256(bits.encode()).hexdigest()[:12]}"
        with self.store.unfinished(key) as blocks:
            record = _record_of(path)
            reused = bool(
                record
                and record.population_sha256 == prepared.sha256
                and not fresh
                # A point of a curve lacks the repetition that a ranked one needs.
                and not (must_repeat(attack, headline=headline) and record.repeatable is None)
            )
            if record is None or not reused:
                record, _ = measure_cell(
                    cell,
                    prepared.population,
                    images,
                    labels,
                    seed=derive_seed(options.seed, "attack", attack),
                    headline=headline,
                    population_sha256=prepared.sha256,
                    training_seconds=prepared.training_seconds,
                    environment=about,
                    plan=plan,
                    blocks=blocks,
                )
                self._measured.add(records.write(record, options.results))
            elif headline and not record.headline:
                record = replace(record, headline=True)
                records.write(record, options.results)
            if blocks:
                blocks.discard()
        return record, reused


def _record_of(path: Path) -> Record | None:
    """The record under this name; one that cannot be used is set aside with a warning."""
    if not path.exists():
        return None
    try:
        return records.read(path)
    except RecordError as error:
        warnings.warn(f"{error}. Set aside as {set_aside(path).name}", stacklevel=2)
        return None


# What a number depends on; records and the page do not count as changes.
CODE = ("attacks", "defenses", "benchmarks")


@cache
def environment(device: torch.device) -> dict[str, str]:
    """Versions, hardware and commit, for a record."""
    packages = ("torch", "torchvision", "torchattacks", "numpy")
    return {
        "commit": _git("rev-parse", "HEAD")
        + ("+changes" if _git("status", "--porcelain", "--", *CODE) else ""),
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "arithmetic": ARITHMETIC,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


def _processor() -> str:
    """The processor's model, where the system tells."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"model name\s*: (.*)", described)
    return found[1] if found else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent.parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
