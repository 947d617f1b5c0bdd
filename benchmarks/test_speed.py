"""What the suite's work costs, timed in turn with other ways to do it; the page's last section.

A gradient is that of one submodel in one image, and an image trained on counts for each submodel.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from randomized_defense_bench.attacks import ATTACKS, ThreatModel, craft
from randomized_defense_bench.attacks.craft import Crafted
from randomized_defense_bench.benchmarks import timing
from randomized_defense_bench.benchmarks.environment import environment
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.benchmarks.measure import surrogate_of
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.benchmarks.timing import SMOKE, Job, SpeedTest
from randomized_defense_bench.benchmarks.tuning import fastest_plan
from randomized_defense_bench.defenses import AveragedEnsemble, Population, Recipe, Task, train
from randomized_defense_bench.defenses.architectures import cifar_resnet18, lenet5
from randomized_defense_bench.defenses.pni import NoisyWeight
from randomized_defense_bench.defenses.replacing import replaced
from randomized_defense_bench.defenses.resize_pad import ResizePad
from randomized_defense_bench.defenses.training import initialise
from randomized_defense_bench.leaderboard.speed.timing import Timing
from torch import Tensor, nn
from torch.nn import functional as F

from randomized_defense_bench import metrics

Report = Callable[..., None]
NETWORKS = {"lenet5": (lenet5, 1), "resnet18": (cifar_resnet18, 3)}
BATCH_SIZES = (16, 32, 64, 125, 250, 1000)
# So small a ball that hardly an image is finished before the last step.
RADIUS = 0.004
# Images a second of the training script that the paper's authors released, on two cores.
RELEASED_SCRIPT = 270


@pytest.fixture
def sizes(session: Session) -> SpeedTest:
    """How much is timed."""
    return SMOKE if session.options.budget == "smoke" else SpeedTest()


@pytest.fixture
def report(
    session: Session,
    terminal: Callable[[], AbstractContextManager[Any]],
    benchmark: BenchmarkFixture,
) -> Iterator[Report]:
    """Keep a timing for the page, and print it."""
    made: list[Timing] = []
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("timings need the machine to themselves: run them without -n")

    def write(**fields: Any) -> None:
        made.append(
            Timing(
                budget=session.options.budget,
                measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
                environment=environment(session.options.device),
                **fields,
            )
        )

    # The jobs are timed in turn; to pytest-benchmark each case is one round.
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)
    yield write
    with terminal():
        for one in made:
            one.write(session.options.results)
            benchmark.extra_info[one.name] = one.suite
            print(f"\n{one.work}: {one.suite:.4g} {one.unit}")
            for other, figure in one.others.items():
                ratio = f", ratio {one.suite / figure:.2f}" if figure else ""
                print(f"  {other}: {figure:.4g}{ratio}")
            for size, figure in one.growth.items():
                print(f"  {size}: {figure:.4g}")


def problem(session: Session, network: str, sizes: SpeedTest) -> tuple[Population, Tensor, Tensor]:
    """An untrained population and random images: speed does not depend on what was learned."""
    build, channels = NETWORKS[network]
    device = session.options.device
    population = initialise(lambda: build(channels), sizes.submodels[network], seed=0).to(device)
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(sizes.images[network], channels, 32, 32, generator=drawn).to(device)
    with torch.no_grad():
        # What one of them says: no image is finished from the start.
        labels = population.eval().logits(images)[0].argmax(-1)
    return population, images, labels


def attack_job(
    attack: str,
    population: Population,
    images: Tensor,
    labels: Tensor,
    *,
    low_precision: bool = False,
    **parameters: Any,
) -> Callable[[], Crafted]:
    """The suite's attack on a population, as `measure` runs it."""
    plan = fastest_plan(population, images)
    images = images.contiguous(memory_format=torch.channels_last)
    return lambda: craft(
        ATTACKS[attack],
        surrogate_of(population, plan, low_precision=low_precision, probe=images[:2]),
        images,
        labels,
        ThreatModel("Linf", RADIUS),
        seed=0,
        parameters=ATTACKS[attack].parameters(parameters),
        batch_size=1000,
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_crafting(session: Session, network: str, sizes: SpeedTest, report: Report) -> None:
    """The paper's attack, each image on one drawn submodel."""
    torchattacks = pytest.importorskip("torchattacks")
    device = session.options.device
    population, images, labels = problem(session, network, sizes)
    ordinary = copy.deepcopy(population)
    surrogates = torch.arange(len(images)) % len(population)
    plan = fastest_plan(population, images)
    numbers: dict[str, Any] = {"steps": sizes.steps, "step_size": RADIUS / 4}
    suite = attack_job("pgd", population, images, labels, low_precision=True, **numbers)

    def torchattacks_pgd(batch_size: int) -> None:
        for i, submodel in enumerate(ordinary.submodels):
            attack = torchattacks.PGD(submodel, RADIUS, RADIUS / 4, sizes.steps)
            mine = surrogates == i
            for batch in _batches(images[mine], labels[mine], batch_size):
                attack(*batch)

    theirs = _at_its_best(
        f"torchattacks {torchattacks.__version__}",
        torchattacks_pgd,
        most=len(images) // len(population),
        device=device,
    )
    rates = _rates({"suite": suite, **theirs}, sizes.steps * len(images), sizes.rounds, device)
    operations = timing.gradient_operations(ordinary.submodels[0], images[0])
    report(
        name=f"crafting-{network}",
        work=f"PGD-{sizes.steps} on one of {len(population)} {network}, {len(images):,} images",
        unit="gradients/s",
        suite=rates.pop("suite"),
        others={**rates, **_limits(operations, {plan.dtype, "float32"}, device)},
        note=f"batch norm folded, channels last, {plan.dtype}",
    )


def test_population_crafting(session: Session, sizes: SpeedTest, report: Report) -> None:
    """An attack on all submodels at once, beside tools that see their average as one network."""
    torchattacks = pytest.importorskip("torchattacks")
    foolbox = pytest.importorskip("foolbox", reason="pip install -e '.[speed]' to compare")
    device = session.options.device
    population, images, labels = problem(session, "lenet5", sizes)
    images, labels = images[:100], labels[:100]
    average = AveragedEnsemble(copy.deepcopy(population)).eval()
    plan = fastest_plan(population, images)
    suite = attack_job(
        "pgd-mean-probability", population, images, labels, steps=sizes.steps, restarts=1
    )

    def torchattacks_pgd(batch_size: int) -> None:
        attack = torchattacks.PGD(average, RADIUS, RADIUS / 4, sizes.steps)
        for batch in _batches(images, labels, batch_size):
            attack(*batch)

    def foolbox_pgd(batch_size: int) -> None:
        model = foolbox.PyTorchModel(average, bounds=(0, 1), device=device)
        attack = foolbox.attacks.LinfPGD(abs_stepsize=RADIUS / 4, steps=sizes.steps)
        for batch in _batches(images, labels, batch_size):
            attack(model, *batch, epsilons=RADIUS)

    jobs: dict[str, Job] = {"suite": suite}
    for tool, run in (
        (f"torchattacks {torchattacks.__version__}", torchattacks_pgd),
        (f"foolbox {foolbox.__version__}", foolbox_pgd),
    ):
        jobs |= _at_its_best(tool, run, most=len(images), device=device)
    gradients = len(population) * len(images) * sizes.steps
    rates = _rates(jobs, gradients, sizes.rounds, device)
    operations = timing.gradient_operations(copy.deepcopy(population.submodels[0]), images[0])
    report(
        name="crafting-population",
        work=f"PGD-{sizes.steps} on all {len(population)} lenet5 at once, {len(images):,} images",
        unit="gradients/s",
        suite=rates.pop("suite"),
        others={**rates, **_limits(operations, {"float32"}, device)},
        note=f"{'stacked' if plan.stacked else 'one by one'}, {plan.chunk} images at a time",
    )


RANDOM: dict[str, Callable[[nn.Module], nn.Module]] = {
    "random resizing": ResizePad,
    "noise on its weights": lambda network: replaced(network, (nn.Conv2d, nn.Linear), NoisyWeight),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_draws(session: Session, kind: str, sizes: SpeedTest, report: Report) -> None:
    """PGD on the mean over fresh draws of a network that is random in itself."""
    torchattacks = pytest.importorskip("torchattacks")
    device = session.options.device
    plain, images, labels = problem(session, "lenet5", sizes)
    images, labels = images[:100], labels[:100]
    network = RANDOM[kind](plain.submodels[0]).to(device).eval()
    population = Population([network], draws=sizes.draws)
    ordinary = copy.deepcopy(network)
    suite = attack_job("pgd-mean-ce", population, images, labels, steps=sizes.steps, restarts=1)

    def torchattacks_pgd(batch_size: int) -> None:
        attack = torchattacks.EOTPGD(
            ordinary, RADIUS, RADIUS / 4, sizes.steps, eot_iter=sizes.draws
        )
        for batch in _batches(images, labels, batch_size):
            attack(*batch)

    name = f"torchattacks {torchattacks.__version__} EOTPGD"
    theirs = _at_its_best(name, torchattacks_pgd, most=len(images), device=device)
    gradients = sizes.draws * len(images) * sizes.steps
    rates = _rates({"suite": suite, **theirs}, gradients, min(3, sizes.rounds), device)
    report(
        name=f"draws-{kind.replace(' ', '-')}",
        work=f"PGD-{sizes.steps} on {sizes.draws} draws of a lenet5 with {kind}, "
        f"{len(images):,} images",
        unit="gradients/s",
        suite=rates.pop("suite"),
        others=rates,
        note="all draws of a step in one batch, where that is faster",
    )


@pytest.mark.parametrize("members", [1, 4])
def test_whole_attacks(session: Session, members: int, sizes: SpeedTest, report: Report) -> None:
    """The claimed AutoAttack on one network, and the cascade on four; no image is fooled."""
    torchattacks = pytest.importorskip("torchattacks")
    official = pytest.importorskip("pyautoattack", reason="pip install -e '.[peers]' to compare")
    device, steps, queries = session.options.device, sizes.attack_steps, sizes.queries
    some = replace(sizes, submodels={"lenet5": members}, images={"lenet5": sizes.attacked})
    population, images, labels = problem(session, "lenet5", some)
    first, *others = population.eval().submodels
    with torch.no_grad():
        # Near one another, so that they agree.
        for weights in zip(first.parameters(), *(m.parameters() for m in others), strict=True):
            for weight in weights[1:]:
                weight.lerp_(weights[0], 0.9)
        kept = (population.logits(images).argmax(-1) == labels).all(0)
    images, labels = images[kept], labels[kept]
    average = AveragedEnsemble(copy.deepcopy(population)).eval()
    attacked = average if members > 1 else copy.deepcopy(population.submodels[0])

    def standard() -> None:
        attack = official.AutoAttack(
            attacked, norm="Linf", eps=RADIUS, version="standard", device=device
        )
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = steps
        attack.square.n_queries = queries
        attack.run_standard_evaluation(images, labels, batch_size=len(images))

    of = " on the averaged ensemble" * (members > 1)
    theirs: dict[str, Job] = {f"AutoAttack of its authors{of}": standard}
    if members == 1:
        numbers: dict[str, Any] = {"steps": steps, "queries": queries}
        suite = attack_job("autoattack", population, images, labels, **numbers)
        theirs[f"torchattacks {torchattacks.__version__}, with 10 steps"] = partial(
            torchattacks.AutoAttack(attacked, eps=RADIUS, seed=0), images, labels
        )
    else:
        numbers = {"steps": steps, "queries": queries // 5, "members": 2, "cycles": 2}
        suite = attack_job("worst-case", population, images, labels, **numbers)
        arc: dict[str, Any] = {"steps": steps // 2, "candidates": 3}
        theirs[f"ARC, {steps // 2} rounds"] = attack_job("arc", population, images, labels, **arc)
    rates = _rates({"suite": suite, **theirs}, len(images), 1, device)
    assert (population.logits(suite().images).argmax(-1) == labels).all()
    what = f"The cascade on {members} lenet5" if members > 1 else "The claimed AutoAttack on lenet5"
    report(
        name=f"whole-{members}",
        work=f"{what}, {len(images):,} images, none of which is fooled",
        unit="images/s",
        suite=rates.pop("suite"),
        others=rates,
        note=", ".join([*(f"{name} {value:,}" for name, value in numbers.items()), "timed once"]),
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_training(session: Session, network: str, sizes: SpeedTest, report: Report) -> None:
    """Training a population, beside a loop over submodels and batches."""
    device = session.options.device
    build, channels = NETWORKS[network]
    n = sizes.submodels[network]
    recipe = {
        "lenet5": Recipe(optimizer="adam", learning_rate=1e-3, epochs=1, batch_size=100),
        "resnet18": Recipe(
            optimizer="sgd",
            learning_rate=0.1,
            epochs=1,
            batch_size=200 if device.type == "cuda" else 50,
            momentum=0.9,
            weight_decay=5e-4,
            dtype="bfloat16",
        ),
    }[network]
    count = sizes.batches[network] * recipe.batch_size
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, 32, 32, generator=drawn).to(device)
    labels = torch.randint(10, (count,), generator=drawn).to(device)
    population, plain = (
        initialise(lambda: build(channels), n, seed=0).to(device) for _ in range(2)
    )
    plan = fastest_plan(population, images)

    def load(_: str) -> Population:
        raise NotImplementedError

    task = Task(images=images, labels=labels, recipe=recipe, seed=0, load=load, plan=plan)
    tool: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    if recipe.optimizer == "sgd":
        tool = partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4)
    optimizers = [tool(m.parameters(), recipe.learning_rate) for m in plain.submodels]

    def loop() -> None:
        for submodel, optimizer in zip(plain.submodels, optimizers, strict=True):
            submodel.train()
            for batch in torch.randperm(count, device=device).split(recipe.batch_size):
                loss = F.cross_entropy(submodel(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    jobs: dict[str, Job] = {
        "suite": lambda: train(population, task, recipe),
        "a plain PyTorch loop in float32": loop,
    }
    rates = _rates(jobs, n * count, sizes.rounds, device)
    suite = rates.pop("suite")
    operations = timing.training_operations(build(channels).to(device), images[:16])
    if network == "lenet5" and device.type == "cpu":
        rates["the authors' released script, timed once on two cores"] = RELEASED_SCRIPT
    report(
        name=f"training-{network}",
        work=f"Training {n} {network}, batches of {recipe.batch_size}",
        unit="images/s",
        suite=suite,
        others={**rates, **_limits(operations, {recipe.dtype}, device)},
        note=f"{'stacked' if plan.stacked else 'one by one'}, {recipe.dtype}",
    )


@pytest.mark.parametrize("grown", ["n", "images", "steps"])
def test_growth(session: Session, grown: str, sizes: SpeedTest, report: Report) -> None:
    """How the cost of an attack on the population grows with its size, the images and the steps."""
    n, count, steps = max(sizes.sizes) // 2, sizes.counts[0], sizes.lengths[0]
    points = {"n": sizes.sizes, "images": sizes.counts, "steps": sizes.lengths}[grown]
    device = session.options.device

    def job(point: int) -> Job:
        chosen = {"n": n, "images": count, "steps": steps, grown: point}
        population, images, labels = problem(
            session,
            "lenet5",
            replace(sizes, submodels={"lenet5": chosen["n"]}, images={"lenet5": chosen["images"]}),
        )
        length = chosen["steps"]
        return attack_job("pgd-mean-ce", population, images, labels, steps=length, restarts=1)

    taken = timing.seconds(
        {f"{grown} = {point:,}": job(point) for point in points},
        rounds=min(3, sizes.rounds),
        device=device,
    )
    fixed = {"n": f"n = {n}", "images": f"{count:,} images", "steps": f"{steps} steps"}
    others = ", ".join(words for name, words in fixed.items() if name != grown)
    report(
        name=f"growth-{grown}",
        work=f"Attack on all submodels at once, {others}",
        unit="seconds",
        suite=list(taken.values())[-1],
        growth=taken,
    )
    (smallest, low), *_, (largest, high) = zip(points, taken.values(), strict=True)
    # Linear, with some room for a machine that does other things too.
    assert high / low < 1.5 * largest / smallest or session.options.budget == "smoke"


def test_memory(session: Session, sizes: SpeedTest, report: Report) -> None:
    """The memory that one attack and its scoring take, each in a process of its own."""
    n, device = sizes.sizes[-1], session.options.device
    growth = {}
    for count in sizes.memory_images:
        run = [sys.executable, "-m", timing.__name__, str(n), str(count), str(device)]
        done = subprocess.run(run, capture_output=True, check=True)
        growth[f"images = {count:,}"] = float(done.stdout)
    report(
        name="memory",
        work=f"Peak memory of an attack on all of {n} lenet5 at once",
        unit="GiB",
        suite=growth[f"images = {sizes.memory_images[-1]:,}"],
        growth=growth,
    )
    # An n of 20 and 10,000 images fit everywhere.
    assert max(growth.values()) < 2


SEARCH = {"steps": 20, "queries": 100, "members": 2, "cycles": 1}


@pytest.mark.parametrize(
    "crafting",
    [
        ("low-precision", "ulm", "pgd", {"steps": 40, "step_size": 0.01}),
        ("low-precision-search", "ulm-adv", "worst-case", SEARCH),
    ],
    ids=["pgd", "worst-case"],
)
def test_low_precision_loses_nothing(
    session: Session, report: Report, crafting: tuple[str, str, str, dict[str, float]]
) -> None:
    """Images crafted in bfloat16 fool a trained population as well as those crafted in float32."""
    name, defense, attack, parameters = crafting
    prepared, eps = session.prepare("digits", defense), 0.1
    images, labels = prepared.dataset.test_images, prepared.dataset.test_labels
    device = session.options.device
    images, labels = images.to(device), labels.to(device)
    plan = fastest_plan(prepared.population, images)
    rough, exact = (
        evaluate(
            prepared.population,
            images,
            labels,
            attack,
            ThreatModel("Linf", eps),
            parameters=parameters,
            plan=replace(plan, dtype=dtype, searches=dtype),
        ).record.answers
        for dtype in ("bfloat16", "float32")
    )
    standard_error = metrics.standard_error(exact)
    assert rough.s.mean() <= exact.s.mean() + standard_error
    report(
        name=name,
        work=f"What {attack} at {eps} leaves of {defense} on digits, crafted in bfloat16",
        unit="MRA",
        suite=float(rough.s.mean()),
        others={f"in float32, standard error {standard_error:.3f}": float(exact.s.mean())},
        note="scored in float32 in either case",
    )


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(images.split(size), labels.split(size), strict=True)


def _at_its_best(
    tool: str, run: Callable[[int], None], *, most: int, device: torch.device
) -> dict[str, Job]:
    """A tool's job at the batch size, of at most `most`, at which it is fastest, by its name."""
    candidates: dict[str, Job] = {
        f"{tool}, its best batch size: {size}": partial(run, size)
        for size in {min(size, most) for size in BATCH_SIZES}
    }
    fastest = timing.best(candidates, device=device)
    return {fastest: candidates[fastest]}


def _rates(jobs: dict[str, Job], work: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Units of work a second by job."""
    taken = timing.seconds(jobs, rounds=rounds, device=device)
    return {name: work / seconds for name, seconds in taken.items()}


def _limits(operations: float, dtypes: set[str], device: torch.device) -> dict[str, float]:
    """What the machine could do if all of it were one large matrix product."""
    return {
        f"the machine's {dtype} matrix products": timing.matrix_rate(getattr(torch, dtype), device)
        / operations
        for dtype in sorted(dtypes)
    }
