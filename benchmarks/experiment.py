"""What an experiment measures, and the numbers that datasets share; the others are in their files.

`smoke` proves that everything runs, `quick` shows the effects on a laptop (on CIFAR-10 in a smaller
network), and `paper` is the protocol of Jasser and Garibay; where the paper is silent, their
released scripts. `paper-short` is the same but for shorter training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import nn

from ..defenses import DEFENSES, Population, Recipe
from ..leaderboard.rows import BUDGETS

# Seconds that one training or one attack may take, so that code that hangs does not stop a run.
TIME_LIMITS = {
    "smoke": 600.0,
    "quick": 4 * 3600.0,
    "paper-short": 24 * 3600.0,
    "paper": 7 * 24 * 3600.0,
}
# How many records are measured again, out of those that take at most so many seconds.
REPRODUCED = 3
REPRODUCED_SECONDS = 1800
# Radii of a curve, in shares of the first radius that defenses are ranked at.
SWEEP_SHARES = (0.25, 0.5, 0.75, 1.5, 2.0, 4.0)

T = TypeVar("T")
# A number under the budgets smoke, quick and paper.
ByBudget = tuple[T, T, T]
Parameters = Mapping[str, Any]
# `f(channels, classes)` makes one untrained submodel.
Network = Callable[[int, int], nn.Module]
# By norm, "Linf" or "L2".
Radii = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the paper's attacks, run as its authors may have run it.

    Attributes:
        name: what is different, in words.
        attack: the attack of the paper's tables.
        tool: torchattacks' class, on one drawn submodel in float32.
        parameters: its keyword arguments beside eps; without an `alpha`, steps are of eps / steps.
        images_per_draw: consecutive images that share a drawn submodel.
        standard: whether the suite runs the attack so.
    """

    name: str
    attack: str
    tool: str
    parameters: Parameters
    images_per_draw: int = 1
    standard: bool = False


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
    retrainings: tuple[Variation, ...]
    continued: tuple[Variation, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One dataset under one budget.

    Attributes:
        train_images, test_images: how many are used; None: all.
        population_images: test images, the first, for what costs n times as much: attacks on the
            population that are not the paper's, and all protocols; None: all.
        drawn_images: the same where members are random in themselves, and every answer costs as
            many passes as `draws`; None: as many.
        network: in place of the dataset's; None: that.
        submodels: n, by defense; "default" for all others.
        draws: most fresh draws of a member that is random in itself.
        recipes: training recipes by defense; of all others, "adversarial" for those that train on
            adversarial examples, else "default".
        adversary: of PGD in training, for defenses that take its numbers.
        defenses: further keyword arguments of defenses, by name.
        attacks: keyword arguments of attacks and certificates, by name.
        radii: by norm, at which defenses are ranked.
        sweep_radii: by norm, further ones for curves.
        batch_size: most images attacked or classified at once.
        every_epoch: keep the weights of `ulm-adv` and `clm-adv` after each epoch of training.
        figures: how much is measured for the paper's figures.
    """

    train_images: int | None
    test_images: int | None
    population_images: int | None
    drawn_images: int | None
    network: Network | None
    submodels: Mapping[str, int]
    draws: int
    recipes: Mapping[str, Recipe]
    adversary: Parameters
    defenses: Mapping[str, Parameters]
    attacks: Mapping[str, Parameters]
    radii: Radii
    sweep_radii: Radii
    batch_size: int
    every_epoch: bool
    figures: Figures

    def most_images(self, population: Population) -> int | None:
        """How many images what costs more on a population is measured on; None: all."""
        return (population.random and self.drawn_images) or self.population_images

    def size(self, defense: str) -> int:
        """n for a defense that does not know its own."""
        return self.submodels.get(defense, self.submodels["default"])

    def keeps_every_epoch(self, defense: str) -> bool:
        """Whether the weights after each epoch of training are kept, for the paper's studies."""
        return self.every_epoch and defense in ("ulm-adv", "clm-adv")

    def recipe(self, defense: str) -> Recipe:
        """The training recipe for a defense."""
        kind = "adversarial" if DEFENSES[defense].adversarial else "default"
        return self.recipes.get(defense, self.recipes[kind])

    def arguments(self, defense: str) -> dict[str, Any]:
        """The keyword arguments that a defense is made with."""
        chosen = DEFENSES[defense]
        adversary = self.adversary if chosen.adversarial else {}
        return chosen.parameters({**adversary, **self.defenses.get(defense, {})})


def standard(
    *,
    radii: Radii,
    step_size: float,
    recipe: Recipe | ByBudget[Recipe],
    sweep_radii: Radii | None = None,
    clm: Parameters | None = None,
    clm_adv: Parameters | None = None,
    batch_size: int = 250,
    pair_eps: float | None = None,
    shown_eps: tuple[float, ...] | None = None,
    continued_images: int | None = None,
    train_images: ByBudget[int | None] = (400, 5000, None),
    test_images: ByBudget[int | None] = (16, 100, None),
    population_images: ByBudget[int | None] = (1000, 50, 1000),
    drawn_images: ByBudget[int | None] = (None, None, None),
    network: ByBudget[Network | None] = (None, None, None),
    submodels: ByBudget[int] = (2, 2, 10),
    epochs: ByBudget[int | None] = (1, 10, None),
    adversarial_epochs: ByBudget[int | None] = (1, 3, None),
    adversary_steps: ByBudget[int] = (2, 4, 20),
    clm_epochs: ByBudget[int | None] = (1, 4, None),
    every_epoch: ByBudget[bool] = (True, False, False),
    quick_attacks: Mapping[str, int] | None = None,
    rivals: ByBudget[int] = (0, 0, 0),
    figure_images: ByBudget[int] = (16, 50, 1000),
    watched_epochs: ByBudget[int] = (1, 2, 20),
    pair_submodels: ByBudget[int] = (10, 5, 10),
    pair_images: ByBudget[int] = (500, 500, 500),
    retrainings: ByBudget[tuple[Variation, ...]] = ((), (), ()),
    continued: ByBudget[tuple[Variation, ...]] = ((), (), ()),
) -> dict[str, Experiment]:
    """The experiments of a dataset, by budget, from what is special about it.

    Args:
        radii: adversarial training is at the first in Linf.
        step_size: of PGD as an attack and, at the paper budget, in training.
        recipe: its epochs are those of the paper budget, unless others are given.
        sweep_radii: default, in each norm: shares of the first of `radii`.
        clm, clm_adv: keyword arguments of counter-linking where they differ from CIFAR-10's.
        pair_eps, shown_eps: default: shares of the first radius in Linf.
        continued_images: training images for going on from ULM-Adv; None: all.
        epochs, adversarial_epochs, clm_epochs: None: the recipe's, and half as many for `clm`.
        adversary_steps: of PGD in training; below the paper budget of a quarter of the radius;
            1: N-FGSM, in one step of the radius.
        quick_attacks: what `attack_numbers` takes in place of the quick budget's numbers.
        rivals: see `attack_numbers`.
        retrainings, continued: those beside the standard ones.

    All others are described by `Experiment` and `Figures`.
    """
    eps = radii["Linf"][0]
    shares = {
        norm: tuple(share * ranked[0] for share in SWEEP_SHARES if share * ranked[0] not in ranked)
        for norm, ranked in radii.items()
    }
    counter_linking = {"alpha": 0.5, "delta": 0.1, "period": 10, **(clm or {})}
    counter_linking_adv = {"alpha": 0.1, "delta": 0.05, "period": 10, **(clm_adv or {})}

    def at(k: int) -> Experiment:
        plain = recipe if isinstance(recipe, Recipe) else recipe[k]
        steps = adversary_steps[k]
        size = eps if steps == 1 else (eps / 4, eps / 4, step_size)[k]
        # The smallest epoch has two steps: counter-linking must happen in it.
        period = {"period": 1} if k == 0 else {}
        rate = plain.learning_rate / 10
        retraining = {"learning_rate": rate, "epochs": clm_epochs[k] or math.ceil(plain.epochs / 2)}
        return Experiment(
            train_images=train_images[k],
            test_images=test_images[k],
            population_images=population_images[k],
            drawn_images=drawn_images[k],
            network=network[k],
            # The adversarially trained populations that the authors released have 4.
            submodels={"default": submodels[k]}
            | ({"ulm-adv": 4, "clm-adv": 4} if submodels[k] > 4 else {}),
            draws=(4, 16, 16)[k],
            recipes={
                "default": replace(plain, epochs=epochs[k] or plain.epochs),
                "adversarial": replace(plain, epochs=adversarial_epochs[k] or plain.epochs),
            },
            adversary={"eps": eps, "step_size": size, "steps": steps},
            defenses={
                "clm": {**counter_linking, **period, **retraining},
                "clm-adv": {**counter_linking_adv, **period},
                "ibp": {"eps": eps},
                # On CIFAR-10 the 0.25 of the paper; a vote needs 97.7% of draws to be right.
                **({"smoothing": {"sigma": radii["L2"][0] / 2}} if "L2" in radii else {}),
            },
            attacks=attack_numbers(
                BUDGETS[k],
                step_size=step_size,
                rivals=rivals[k],
                **(quick_attacks or {} if k == 1 else {}),
            ),
            radii=radii,
            sweep_radii={**shares, **(sweep_radii or {})},
            batch_size=batch_size,
            every_epoch=every_epoch[k],
            figures=Figures(
                images=figure_images[k],
                conformity=(2, 1, 5)[k],
                watched_epochs=watched_epochs[k],
                pair_submodels=pair_submodels[k],
                pair_images=pair_images[k],
                pair_eps=pair_eps or eps / 4,
                shown_eps=shown_eps or (eps / 4, eps / 2, eps, 2 * eps),
                variants=variants(step_size),
                combined=tuple(v for v in variants(step_size) if v.name in _COMBINED),
                retrainings=(*_RETRAININGS[k], *retrainings[k]),
                continued=(*going_on(rate, continued_images), *continued[k]),
            ),
        )

    smoke, quick, paper = map(at, range(3))
    shorter = shortened(paper)
    return {"smoke": smoke, "quick": quick, "paper-short": shorter, "paper": paper}


def shortened(full: Experiment, epochs: int = 30, adversary_steps: int = 10) -> Experiment:
    """The same with at most so many epochs, half of them for retraining, and steps of PGD in them.

    Fewer steps are of at least a quarter of the radius.
    """
    most = {"epochs": math.ceil(epochs / 2), "steps": adversary_steps}

    def shorter(numbers: Parameters) -> Parameters:
        fewer = {name: min(value, most.get(name, value)) for name, value in numbers.items()}
        if "step_size" in numbers:
            fewer["step_size"] = max(numbers["step_size"], numbers["eps"] / 4)
        return fewer

    return replace(
        full,
        recipes={d: replace(r, epochs=min(r.epochs, epochs)) for d, r in full.recipes.items()},
        adversary=shorter(full.adversary),
        defenses={defense: shorter(numbers) for defense, numbers in full.defenses.items()},
    )


def attack_numbers(
    budget: str,
    *,
    step_size: float,
    queries: int | None = None,
    targets: int | None = None,
    arc_steps: int | None = None,
    square_queries: int | None = None,
    rivals: int = 0,
) -> dict[str, Parameters]:
    """Keyword arguments: of the paper's four attacks, of those on the population, of a certificate.

    ARC and the outsider's Square are slow on images that other attacks are done with at once: they
    get at most 20 rounds and 1,000 queries.

    Args:
        queries: of AutoAttack's Square; square_queries: of that on the population; these and what
            follows in place of the budget's.
        rivals: wrong classes that the cascade approaches one by one; 0: it has no such part.

    Raises:
        LookupError: unknown budget.
    """
    if budget not in BUDGETS:
        raise LookupError(f"unknown budget {budget!r} (known: {', '.join(BUDGETS)})")
    k = {"smoke": 0, "quick": 1}.get(budget, 2)
    arc_steps = arc_steps or (1, 10, 20)[k]
    square_queries = square_queries or (2, 100, 5000)[k]
    steps, auto_steps = (2, 40, 40)[k], (2, 100, 100)[k]
    population = {"steps": (2, 20, 100)[k]}
    apgd = {"targets": targets or (1, 3, 9)[k]}
    losses = ("mean-ce", "mean-probability", "mean-margin", "clipped-margin")
    return {
        "pgd": {"steps": steps, "step_size": step_size},
        "mifgsm": {"steps": (2, 10, 10)[k], "decay": 1.0},
        "pgd-eot": {"steps": steps, "step_size": step_size, "draws": (2, 2, 10)[k]},
        "autoattack": {"steps": auto_steps, "queries": queries or (2, 1000, 2000)[k]},
        **{f"pgd-{loss}": {**population, "restarts": 1} for loss in losses},
        "apgd-population": {"steps": auto_steps, **apgd},
        "arc": {"steps": arc_steps, "candidates": 3},
        "square-population": {"queries": square_queries},
        "square-oracle": {"queries": min(square_queries, 1000)},
        "worst-case": {
            "steps": auto_steps,
            "queries": (2, 300, 1000)[k],
            "members": 2,
            "cycles": (1, 1, 2)[k],
            **({"targets": rivals} if rivals else {}),
        },
        "clopper-pearson": {"samples": (100, 1000, 10_000)[k]},
    }


def variants(step_size: float) -> tuple[Variant, ...]:
    """What the paper leaves open of its attacks: random start, steps, draws.

    Args:
        step_size: the released code's for PGD, with 40 steps.
    """
    own = {"alpha": 2 / 255, "steps": 10}
    still = {"alpha": 2 / 255, "steps": 40, "random_start": False, "eot_iter": 2}
    pgd = {"alpha": step_size, "steps": 40}
    tools = {"pgd": "PGD", "mifgsm": "MIFGSM", "autoattack": "AutoAttack", "pgd-eot": "EOTPGD"}

    def run(attack: str, name: str, numbers: Parameters, **others: Any) -> Variant:
        return Variant(name=name, attack=attack, tool=tools[attack], parameters=numbers, **others)

    by_batch = "the same, one draw for every 100 images, as in the released code"
    smaller = run("pgd", "steps of 2/255", {**pgd, "alpha": 2 / 255})
    return (
        run("pgd", "40 steps, a random start, one draw an image", pgd, standard=True),
        run("pgd", by_batch, pgd, images_per_draw=100),
        run("pgd", "without a random start", {**pgd, "random_start": False}),
        *([smaller] if step_size != 2 / 255 else []),
        run("pgd", "100 steps", {**pgd, "steps": 100}),
        run("mifgsm", "10 steps of 2/255, the tool's own setting", own),
        run("mifgsm", "10 steps of eps / 10", {"steps": 10}, standard=True),
        run("mifgsm", "5 steps of eps / 5", {"steps": 5}),
        run("mifgsm", "20 steps of eps / 20", {"steps": 20}),
        run("autoattack", "10 steps for each part, the tool's own setting", {}),
        run("pgd-eot", "like PGD", {**pgd, "eot_iter": 2}),
        run("pgd-eot", "40 steps of 2/255 without a random start", still),
        run("pgd-eot", "10 steps of 2/255, the tool's own setting", {**own, "eot_iter": 2}),
    )


# The settings that alone come nearest the paper's numbers under PGD and AutoAttack.
_COMBINED = ("steps of 2/255", "10 steps for each part, the tool's own setting")

_IN_TURN = "one submodel after another"
_THREE_WAYS = (
    Variation(name="as the paper says", defense="clm"),
    Variation(name="without counter-linking", defense="clm", changes={"alpha": 0.0}),
    Variation(name=_IN_TURN, defense="clm", in_turn=True),
)
_RETRAININGS: ByBudget[tuple[Variation, ...]] = (_THREE_WAYS, (), _THREE_WAYS)


def going_on(learning_rate: float, images: int | None) -> tuple[Variation, ...]:
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
