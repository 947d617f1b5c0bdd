"""The only place with experiment numbers: what each budget spends on each dataset.

`smoke` proves that everything runs, `quick` shows the effects on a laptop (on CIFAR-10 hardly more
than that there are any), and `paper` is the protocol of Jasser and Garibay; where the paper is
silent, their released scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from defenses.training import Recipe
from leaderboard.table import BUDGETS, CASCADE

# Seconds that one case may take, training included, so that code that hangs does not stop a run.
TIME_LIMITS = {"smoke": 600.0, "quick": 4 * 3600.0, "paper": 7 * 24 * 3600.0}
# The attacks whose curves against eps are drawn.
SWEEP_ATTACKS = ("fgsm", "pgd", "pgd-clipped-margin")
# What is measured on all test images: the clean images and the paper's attacks.
ALL_IMAGES = ("none", "noise", "fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot")
# The attack that each protocol beside the draw is measured under.
PROTOCOL_ATTACKS = {"alone": CASCADE, "average": CASCADE, "transfer": "pgd", "doubled": CASCADE}
DOUBLED = ("steps", "apgd_steps", "arc_steps", "rounds")
# The attack that is run twice with the same seed, and on how many images.
REPEATED_ATTACK = "pgd-clipped-margin"
REPEATED = 20
# How many records are measured again, out of those that take at most so many seconds.
REPRODUCED = 3
REPRODUCED_SECONDS = 1800

Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the paper's attacks, run as its authors may have run it.

    Attributes:
        name: what is different, in words.
        attack: the attack of the paper's tables.
        tool: torchattacks' class, on one drawn submodel in float32.
        parameters: its keyword arguments beside eps; without an `alpha`, steps are of eps / steps.
        images_per_draw: consecutive images that share a drawn submodel.
        ours: whether the suite runs the attack so.
    """

    name: str
    attack: str
    tool: str
    parameters: Parameters
    images_per_draw: int = 1
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A defense trained otherwise than the budget says.

    Attributes:
        name: what is different, in words; empty if nothing is.
        defense: whose training is varied, and whose numbers the population stands beside.
        changes: keyword arguments of the defense in place of the budget's.
        recipe: fields of its recipe in place of the budget's.
        images: training images used, the first; None: as many as the budget says.
        in_turn: submodels train one after another within each epoch.
        start: the population to go on from, with a new optimizer; None: as the defense starts.
    """

    name: str = ""
    defense: str
    changes: Parameters = field(default_factory=dict)
    recipe: Parameters = field(default_factory=dict)
    images: int | None = None
    in_turn: bool = False
    start: Variation | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How much is measured for the paper's figures.

    Attributes:
        images: test images, the first.
        sizes: n, as far as the population has so many submodels.
        conformity: how many CLMs are trained, each from an ULM of its own, the first one included.
        watched_epochs: how much of the retraining with counter-linking is watched.
        pair_submodels: the first so many submodels are compared in pairs,
        pair_images: on the first so many images,
        pair_eps: at this radius; at the paper's nothing is left of any pair in the worst case.
        shown_eps: radii at which examples are shown.
        variants: other ways to run the paper's attacks, to explain differences.
        combined: those of the variants that are also run on populations trained in other ways:
            two causes may add up.
        retrainings: ways to retrain CLM, to explain differences.
        continued: ways to train ULM-Adv on, with counter-linking and without, likewise.
    """

    images: int
    sizes: tuple[int, ...] = (1, 2, 4, 6, 8, 10)
    conformity: int
    watched_epochs: int
    pair_submodels: int
    pair_images: int
    pair_eps: float
    shown_eps: tuple[float, ...]
    variants: tuple[Variant, ...]
    combined: tuple[Variant, ...]
    retrainings: tuple[Variation, ...] = ()
    continued: tuple[Variation, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One dataset under one budget.

    Attributes:
        train_images, test_images: how many are used; None: all.
        submodels: n, by defense; "default" for all others.
        recipes: training recipes by defense; "default" for all others.
        defenses: keyword arguments of defenses, by name.
        attacks: keyword arguments of attacks, by name.
        eps: Linf radii at which defenses are ranked, the paper's.
        sweep_eps: further radii, for curves.
        batch_size: most images attacked or classified at once.
        population_images: test images, the first, for what costs n times as much: attacks on the
            population that are not the paper's, and all protocols; None: all.
        every_epoch: keep the weights of `ulm-adv` and `clm-adv` after each epoch of training.
        figures: how much is measured for the paper's figures.
    """

    train_images: int | None = None
    test_images: int | None = None
    population_images: int | None = None
    submodels: Mapping[str, int]
    recipes: Mapping[str, Recipe]
    defenses: Mapping[str, Parameters]
    attacks: Mapping[str, Parameters]
    eps: tuple[float, ...]
    sweep_eps: tuple[float, ...]
    batch_size: int = 250
    every_epoch: bool = False
    figures: Figures

    def population_size(self, defense: str) -> int:
        """n for a defense."""
        return self.submodels.get(defense, self.submodels["default"])

    def recipe(self, defense: str) -> Recipe:
        """The training recipe for a defense."""
        return self.recipes.get(defense, self.recipes["default"])

    def images(self, attack: str, protocol: str = "draw") -> int | None:
        """How many test images a cell is measured on; None: all."""
        if attack in ALL_IMAGES and protocol == "draw":
            return self.test_images
        return self.population_images or self.test_images


def _adversarial(**numbers: float) -> dict[str, Parameters]:
    """The same PGD adversary for the three adversarially trained defenses."""
    return dict.fromkeys(("single-adv", "ulm-adv", "clm-adv"), numbers)


def _counter_linked(
    defenses: Mapping[str, Parameters], clm: Parameters, clm_adv: Parameters
) -> dict[str, Parameters]:
    return {**defenses, "clm": clm, "clm-adv": {**defenses["clm-adv"], **clm_adv}}


def _recipes(plain: Recipe, adversarial_epochs: int) -> dict[str, Recipe]:
    adversarial = replace(plain, epochs=adversarial_epochs)
    names = ("single-adv", "ulm-adv", "clm-adv")
    return {"default": plain, **dict.fromkeys(names, adversarial)}


def _attacks(
    *,
    steps: int,
    step_size: float,
    draws: int,
    momentum_steps: int,
    auto_steps: int,
    queries: int,
    population_steps: int,
    arc_steps: int,
    square_queries: int,
    rounds: int,
    targets: int = 3,
) -> dict[str, Parameters]:
    """The paper's four with parameters, then those on the population.

    ARC and the outsider's Square are slow on images that other attacks are done with at once. By
    themselves they get at most 20 rounds and 1,000 queries. In the cascade ARC gets all its rounds,
    and Square up to 1,000 queries in each of its own.
    """
    few_queries = min(square_queries, 1000)
    losses = ("mean-ce", "mean-probability", "mean-margin", "clipped-margin")
    candidates = 3
    return {
        "pgd": {"steps": steps, "step_size": step_size},
        "mifgsm": {"steps": momentum_steps, "decay": 1.0},
        "pgd-eot": {"steps": steps, "step_size": step_size, "draws": draws},
        "autoattack": {"steps": auto_steps, "queries": queries},
        **{f"pgd-{loss}": {"steps": population_steps, "restarts": 1} for loss in losses},
        "apgd-population": {"steps": auto_steps, "targets": targets},
        "arc": {"steps": min(arc_steps, 20), "candidates": candidates},
        "square-population": {"queries": square_queries},
        "square-oracle": {"queries": few_queries},
        "worst-case": {
            "steps": population_steps,
            "apgd_steps": auto_steps,
            "targets": targets,
            "arc_steps": arc_steps,
            "candidates": candidates,
            "queries": few_queries,
            "rounds": rounds,
        },
    }


def _paper_attacks(step_size: float) -> dict[str, Parameters]:
    """The paper's, and what a verdict on its populations deserves."""
    return _attacks(
        steps=40,
        step_size=step_size,
        draws=10,
        momentum_steps=10,
        auto_steps=100,
        queries=5000,
        population_steps=100,
        arc_steps=50,
        targets=9,
        square_queries=5000,
        rounds=4,
    )


def _variants(step_size: float) -> tuple[Variant, ...]:
    """What the paper leaves open of its attacks: random start, steps, draws.

    Args:
        step_size: the released code's for PGD, with 40 steps.
    """
    own = {"alpha": 2 / 255, "steps": 10}
    still = {"alpha": 2 / 255, "steps": 40, "random_start": False, "eot_iter": 2}
    pgd = {"alpha": step_size, "steps": 40}
    tools = {"pgd": "PGD", "mifgsm": "MIFGSM", "autoattack": "AutoAttack", "pgd-eot": "EOTPGD"}

    def run(attack: str, name: str, parameters: Parameters, **others: Any) -> Variant:
        return Variant(
            name=name, attack=attack, tool=tools[attack], parameters=parameters, **others
        )

    by_batch = "the same, one draw for every 100 images, as in the released code"
    small = "steps of 2/255"
    smaller = (run("pgd", small, {**pgd, "alpha": 2 / 255}),) if step_size != 2 / 255 else ()
    return (
        run("pgd", "40 steps, a random start, one draw an image", pgd, ours=True),
        run("pgd", by_batch, pgd, images_per_draw=100),
        run("pgd", "without a random start", {**pgd, "random_start": False}),
        *smaller,
        run("pgd", "100 steps", {**pgd, "steps": 100}),
        run("mifgsm", "10 steps of 2/255, the tool's own setting", own),
        run("mifgsm", "10 steps of eps / 10", {"steps": 10}, ours=True),
        run("mifgsm", "5 steps of eps / 5", {"steps": 5}),
        run("mifgsm", "20 steps of eps / 20", {"steps": 20}),
        run("autoattack", "10 steps for each part, the tool's own setting", {}),
        run("pgd-eot", "like PGD", {**pgd, "eot_iter": 2}),
        run("pgd-eot", "40 steps of 2/255 without a random start", still),
        run("pgd-eot", "10 steps of 2/255, the tool's own setting", {**own, "eot_iter": 2}),
    )


def _combined(step_size: float) -> tuple[Variant, ...]:
    """The settings that alone come nearest the paper's numbers under PGD and AutoAttack."""
    names = ("steps of 2/255", "10 steps for each part, the tool's own setting")
    return tuple(variant for variant in _variants(step_size) if variant.name in names)


_IN_TURN = "one submodel after another"
_RETRAININGS = (
    Variation(name="as the paper says", defense="clm"),
    Variation(name="without counter-linking", defense="clm", changes={"alpha": 0.0}),
    Variation(name=_IN_TURN, defense="clm", in_turn=True),
)


def _continued(*, learning_rate: float, images: int | None) -> tuple[Variation, ...]:
    """ULM-Adv after one more epoch at the learning rate of CLM's retraining."""
    trained_on = Variation(
        name="trained on",
        defense="ulm-adv",
        recipe={"epochs": 1, "learning_rate": learning_rate},
        images=images,
        start=Variation(defense="ulm-adv"),
    )
    linked = replace(trained_on, name="retrained from ULM-Adv", defense="clm-adv")
    return trained_on, linked, replace(linked, name=f"{_IN_TURN}, {linked.name}", in_turn=True)


def _longer(*, learning_rate: float, images: int) -> tuple[Variation, ...]:
    """ULM-Adv trained for longer, and then retrained, also with weights examined less often."""
    three = {"epochs": 3}
    by_three = Variation(
        name="trained on for 3 epochs",
        defense="ulm-adv",
        recipe=three,
        start=Variation(defense="ulm-adv"),
    )
    by_six = Variation(
        name="trained on for 6 epochs", defense="ulm-adv", recipe=three, start=by_three
    )
    _, linked, _ = _continued(learning_rate=learning_rate, images=images)
    linked = replace(linked, name=f"{linked.name} {by_six.name}", start=by_six)
    rarely = replace(linked, name=f"{linked.name}, examined every 10 steps", changes={"period": 10})
    return by_three, by_six, linked, rarely


_ONE = {"single": 1, "single-adv": 1}
_TEN = {"default": 10, **_ONE}
# The adversarially trained populations that the authors released have 4.
_TEN_FOUR = {**_TEN, "ulm-adv": 4, "clm-adv": 4}
_TWO = {"default": 2, **_ONE}

_MNIST_PAPER = Experiment(
    population_images=1000,
    submodels=_TEN_FOUR,
    # The paper gives no number of epochs for MNIST.
    recipes=_recipes(
        Recipe(optimizer="adam", learning_rate=1e-3, epochs=10, batch_size=100),
        adversarial_epochs=4,
    ),
    defenses=_counter_linked(
        _adversarial(eps=0.3, step_size=0.01, steps=100),
        clm={"alpha": 0.1, "delta": 0.1, "period": 10, "learning_rate": 1e-4, "epochs": 5},
        clm_adv={"alpha": 0.01, "delta": 0.005, "period": 1},
    ),
    attacks=_paper_attacks(step_size=0.01),
    eps=(0.3, 0.4),
    sweep_eps=(0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5),
    every_epoch=True,
    figures=Figures(
        images=1000,
        conformity=5,
        watched_epochs=5,
        pair_submodels=10,
        pair_images=500,
        pair_eps=0.1,
        shown_eps=(0.1, 0.2, 0.3, 0.4),
        variants=_variants(step_size=0.01),
        combined=_combined(step_size=0.01),
        retrainings=(
            *_RETRAININGS,
            Variation(name="examined every 50 steps", defense="clm", changes={"period": 50}),
            Variation(name="examined every 200 steps", defense="clm", changes={"period": 200}),
            Variation(
                name="at a learning rate of 1e-3", defense="clm", changes={"learning_rate": 1e-3}
            ),
        ),
        # One epoch of 20,000 images instead of five of 60,000.
        continued=(
            *_continued(learning_rate=1e-4, images=20_000),
            *_longer(learning_rate=1e-4, images=20_000),
        ),
    ),
)

_CIFAR_PAPER = Experiment(
    population_images=1000,
    submodels=_TEN_FOUR,
    recipes=_recipes(
        Recipe(
            optimizer="sgd",
            learning_rate=0.1,
            epochs=200,
            batch_size=200,
            momentum=0.9,
            weight_decay=5e-4,
            cosine=True,
            augment=True,
            dtype="bfloat16",
        ),
        adversarial_epochs=200,
    ),
    defenses=_counter_linked(
        _adversarial(eps=8 / 255, step_size=2 / 255, steps=20),
        clm={"alpha": 0.5, "delta": 0.1, "period": 10, "learning_rate": 1e-2, "epochs": 150},
        clm_adv={"alpha": 0.1, "delta": 0.05, "period": 10},
    ),
    attacks=_paper_attacks(step_size=2 / 255),
    eps=(8 / 255, 16 / 255),
    sweep_eps=tuple(k / 255 for k in (1, 2, 4, 6, 12, 24, 32)),
    batch_size=100,
    figures=Figures(
        images=1000,
        conformity=5,
        watched_epochs=20,
        pair_submodels=10,
        pair_images=500,
        pair_eps=2 / 255,
        shown_eps=(2 / 255, 4 / 255, 8 / 255, 16 / 255),
        variants=_variants(step_size=2 / 255),
        combined=_combined(step_size=2 / 255),
        retrainings=_RETRAININGS,
        continued=_continued(learning_rate=1e-2, images=None),
    ),
)


def _shorter_training(
    experiment: Experiment, *, epochs: int, adversarial_epochs: int, clm_epochs: int, steps: int
) -> Experiment:
    """The same experiment with fewer epochs, and fewer PGD steps in training that reach as far."""
    defenses = {name: dict(numbers) for name, numbers in experiment.defenses.items()}
    for numbers in defenses.values():
        if "steps" in numbers:
            numbers |= {"steps": steps, "step_size": numbers["eps"] / 4}
    defenses["clm"]["epochs"] = clm_epochs
    plain = replace(experiment.recipes["default"], epochs=epochs)
    return replace(experiment, recipes=_recipes(plain, adversarial_epochs), defenses=defenses)


def _quick(figures: Figures, **numbers: Any) -> Figures:
    """Figures with other numbers, of one CLM retrained in one way."""
    return replace(figures, conformity=1, retrainings=(), **numbers)


_MNIST_QUICK = replace(
    _shorter_training(_MNIST_PAPER, epochs=3, adversarial_epochs=2, clm_epochs=5, steps=7),
    test_images=1000,
    population_images=None,
    attacks=_attacks(
        steps=40,
        step_size=0.01,
        draws=2,
        momentum_steps=10,
        auto_steps=100,
        queries=1000,
        population_steps=20,
        arc_steps=6,
        square_queries=100,
        rounds=2,
    ),
    eps=(0.3,),
    sweep_eps=(0.1, 0.15, 0.2, 0.25, 0.4, 0.5),
    figures=_quick(
        _MNIST_PAPER.figures,
        images=500,
        watched_epochs=1,
        pair_submodels=5,
        continued=_continued(learning_rate=1e-4, images=20_000),
    ),
)

_DIGITS_PAPER = replace(
    _MNIST_PAPER,
    recipes=_recipes(
        Recipe(optimizer="adam", learning_rate=1e-3, epochs=100, batch_size=50),
        adversarial_epochs=100,
    ),
    every_epoch=False,  # of a hundred
    defenses=_counter_linked(
        _adversarial(eps=0.25, step_size=0.01, steps=50),
        clm=_MNIST_PAPER.defenses["clm"],
        clm_adv={"alpha": 0.01, "delta": 0.005, "period": 1},
    ),
    # 8 x 8 pixels hold less than MNIST's: at 0.3 too little is left to learn.
    eps=(0.25,),
    sweep_eps=(0.05, 0.1, 0.15, 0.2, 0.3, 0.5),
    figures=replace(
        _MNIST_PAPER.figures,
        images=200,
        watched_epochs=20,
        pair_eps=0.05,
        continued=_continued(learning_rate=1e-4, images=None),
        retrainings=_RETRAININGS,
    ),
)

_DIGITS_QUICK = replace(
    _shorter_training(_DIGITS_PAPER, epochs=8, adversarial_epochs=4, clm_epochs=8, steps=4),
    submodels=_TEN_FOUR,
    every_epoch=True,
    test_images=80,
    attacks=_attacks(
        steps=40,
        step_size=0.01,
        draws=2,
        momentum_steps=10,
        auto_steps=100,
        queries=500,
        population_steps=20,
        arc_steps=10,
        square_queries=100,
        rounds=2,
    ),
    figures=_quick(_DIGITS_PAPER.figures, images=80, watched_epochs=8, pair_submodels=5),
)

# What two cores do in hours, at a hundred gradients of a ResNet18 a second. Too few images to tell
# defenses apart, enough to see what an attack leaves.
_CIFAR_QUICK = replace(
    _shorter_training(
        replace(
            _CIFAR_PAPER,
            recipes={
                # A quarter of the batch, for enough steps, and of the learning rates with it.
                "default": replace(
                    _CIFAR_PAPER.recipes["default"], batch_size=50, learning_rate=0.025
                )
            },
            defenses={
                **_CIFAR_PAPER.defenses,
                "clm": {**_CIFAR_PAPER.defenses["clm"], "learning_rate": 2.5e-3},
            },
        ),
        epochs=10,
        adversarial_epochs=3,
        clm_epochs=4,
        steps=4,
    ),
    train_images=5000,
    test_images=100,
    population_images=50,
    submodels=_TWO,
    attacks=_attacks(
        steps=40,
        step_size=2 / 255,
        draws=2,
        momentum_steps=10,
        auto_steps=100,
        queries=1000,
        population_steps=20,
        arc_steps=10,
        targets=1,
        square_queries=200,
        rounds=2,
    ),
    figures=_quick(
        _CIFAR_PAPER.figures,
        images=50,
        watched_epochs=2,
        pair_images=50,
        continued=_continued(learning_rate=2.5e-3, images=None),
    ),
)


def _smoke(experiment: Experiment, *, train_images: int, test_images: int) -> Experiment:
    """Two submodels, one epoch, two steps: numbers without meaning, from every line of code."""
    step_size = experiment.attacks["pgd"]["step_size"]
    shorter = _shorter_training(experiment, epochs=1, adversarial_epochs=1, clm_epochs=1, steps=2)
    # The smallest epoch has two steps: counter-linking must happen in it.
    defenses = {
        name: {**numbers, "period": 1} if "period" in numbers else numbers
        for name, numbers in shorter.defenses.items()
    }
    return replace(
        shorter,
        defenses=defenses,
        train_images=train_images,
        test_images=test_images,
        submodels=_TWO,
        every_epoch=True,
        attacks=_attacks(
            steps=2,
            step_size=step_size,
            draws=2,
            momentum_steps=2,
            auto_steps=2,
            queries=2,
            population_steps=2,
            arc_steps=1,
            targets=1,
            square_queries=2,
            rounds=2,
        ),
        figures=replace(
            experiment.figures,
            images=test_images,
            conformity=2,
            watched_epochs=1,
            retrainings=_RETRAININGS,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SpeedTest:
    """How much is timed.

    Attributes:
        images: attacked at once, by network.
        submodels: n, by network.
        steps: of PGD.
        batches: that each submodel is trained on, by network.
        rounds: how often each job is timed.
        sizes, counts, lengths: n, N and steps at which the growth of cost is measured.
        memory_images: N at which memory is measured, with the last of `sizes`.
    """

    images: Mapping[str, int]
    submodels: Mapping[str, int]
    steps: int
    batches: Mapping[str, int]
    rounds: int
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    lengths: tuple[int, ...]
    memory_images: tuple[int, ...]


_SPEED_QUICK = SpeedTest(
    images={"lenet5": 1000, "resnet18": 64},
    submodels={"lenet5": 10, "resnet18": 2},
    steps=40,
    batches={"lenet5": 14, "resnet18": 1},
    rounds=5,
    sizes=(1, 2, 5, 10, 20),
    counts=(100, 300, 1000),
    lengths=(5, 10, 20, 40),
    memory_images=(100, 1000, 10_000),
)
SPEED_TESTS = {
    "smoke": SpeedTest(
        images={"lenet5": 20, "resnet18": 4},
        submodels={"lenet5": 2, "resnet18": 2},
        steps=2,
        batches={"lenet5": 2, "resnet18": 1},
        rounds=1,
        sizes=(1, 2),
        counts=(10, 20),
        lengths=(1, 2),
        memory_images=(10,),
    ),
    "quick": _SPEED_QUICK,
    "paper": _SPEED_QUICK,
}

_EXPERIMENTS: dict[tuple[str, str], Experiment] = {
    ("smoke", "digits"): _smoke(_DIGITS_PAPER, train_images=500, test_images=50),
    ("quick", "digits"): _DIGITS_QUICK,
    ("paper", "digits"): _DIGITS_PAPER,
    ("smoke", "mnist"): _smoke(_MNIST_PAPER, train_images=1000, test_images=50),
    ("quick", "mnist"): _MNIST_QUICK,
    ("paper", "mnist"): _MNIST_PAPER,
    ("smoke", "cifar10"): _smoke(_CIFAR_PAPER, train_images=400, test_images=16),
    ("quick", "cifar10"): _CIFAR_QUICK,
    ("paper", "cifar10"): _CIFAR_PAPER,
}


def experiment(budget: str, dataset: str) -> Experiment:
    """What a budget spends on a dataset.

    Raises:
        LookupError: unknown budget, or a dataset without numbers.
    """
    if (budget, dataset) not in _EXPERIMENTS:
        datasets = sorted({name for _, name in _EXPERIMENTS})
        raise LookupError(
            f"no budget {budget!r} for dataset {dataset!r} "
            f"(budgets: {', '.join(BUDGETS)}; datasets: {', '.join(datasets)})"
        )
    return _EXPERIMENTS[budget, dataset]


def doubled(parameters: Parameters) -> dict[str, Any]:
    """The cascade's parameters for the protocol "doubled"."""
    return {**parameters, **{name: 2 * parameters[name] for name in DOUBLED}}


def attack_parameters(attack: str, budget: str = "quick", dataset: str = "mnist") -> Parameters:
    """An attack's keyword arguments under a budget."""
    return experiment(budget, dataset).attacks.get(attack, {})
