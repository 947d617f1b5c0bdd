"""The paper budget is the paper's protocol, number by number."""

from dataclasses import replace

import pytest

from attacks import ATTACKS
from benchmarks.budgets import SWEEP_ATTACKS, experiment
from benchmarks.datasets import DATASETS
from defenses import DEFENSES
from leaderboard.table import BUDGETS


def test_mnist():
    numbers = experiment("paper", "mnist")
    assert numbers.test_images is numbers.train_images is None
    sizes = [numbers.population_size(d) for d in ("ulm", "clm", "ulm-adv", "clm-adv")]
    assert sizes == [10, 10, 4, 4]
    assert [numbers.population_size(d) for d in ("single", "single-adv")] == [1, 1]
    recipe = numbers.recipe("ulm")
    assert (recipe.optimizer, recipe.learning_rate, recipe.batch_size) == ("adam", 1e-3, 100)
    clm = {"alpha": 0.1, "delta": 0.1, "period": 10, "learning_rate": 1e-4, "epochs": 5}
    assert numbers.defenses["clm"] == clm
    adversary = {"eps": 0.3, "step_size": 0.01, "steps": 100}
    assert numbers.defenses["ulm-adv"] == adversary
    link = {"alpha": 0.01, "delta": 0.005, "period": 1}
    assert numbers.defenses["clm-adv"] == {**adversary, **link}
    assert numbers.attacks["pgd"] == {"steps": 40, "step_size": 0.01}
    assert numbers.eps == (0.3, 0.4)


def test_cifar10():
    numbers = experiment("paper", "cifar10")
    sizes = [numbers.population_size(d) for d in ("ulm", "clm", "ulm-adv", "clm-adv")]
    assert sizes == [10, 10, 4, 4]
    assert numbers.attacks["autoattack"]["steps"] == 100
    recipe = numbers.recipe("ulm")
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.cosine, recipe.augment) == (
        200,
        200,
        True,
        True,
    )
    clm = {"alpha": 0.5, "delta": 0.1, "period": 10, "learning_rate": 1e-2, "epochs": 150}
    assert numbers.defenses["clm"] == clm
    adversary = {"eps": 8 / 255, "step_size": 2 / 255, "steps": 20}
    assert numbers.defenses["ulm-adv"] == adversary
    link = {"alpha": 0.1, "delta": 0.05, "period": 10}
    assert numbers.defenses["clm-adv"] == {**adversary, **link}
    assert numbers.attacks["pgd"] == {"steps": 40, "step_size": 2 / 255}
    assert numbers.eps == (8 / 255, 16 / 255)


@pytest.mark.parametrize("dataset", list(DATASETS))
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_knows_every_dataset_and_sweeps_beyond_the_paper(budget, dataset):
    numbers = experiment(budget, dataset)
    assert numbers.attacks.keys() <= set(ATTACKS)
    assert numbers.defenses.keys() <= set(DEFENSES)
    assert set(SWEEP_ATTACKS) <= set(ATTACKS)
    radii = {0.0, *numbers.eps, *numbers.sweep_eps}
    assert len(radii) >= 8
    assert max(radii) > max(experiment("paper", dataset).eps)


def test_counter_linking_happens_within_every_epoch():
    for dataset, images in (("digits", 1437), ("mnist", 60_000), ("cifar10", 50_000)):
        for budget in BUDGETS:
            numbers = experiment(budget, dataset)
            for defense in ("clm", "clm-adv"):
                steps = (numbers.train_images or images) / numbers.recipe(defense).batch_size
                assert steps >= numbers.defenses[defense]["period"], (budget, dataset, defense)


def variations(numbers):
    return (*numbers.figures.retrainings, *numbers.figures.continued)


def test_variations_change_numbers_that_their_defense_has():
    for dataset in DATASETS:
        for budget in BUDGETS:
            numbers = experiment(budget, dataset)
            for one in variations(numbers):
                assert one.changes.keys() <= numbers.defenses.get(one.defense, {}).keys()
                replace(numbers.recipe(one.defense), **one.recipe)
                # It begins with an ULM and takes its epochs and learning rate from arguments.
                assert one.defense != "clm" or not (one.start or one.recipe)


def test_what_is_retrained_from_an_adversarial_population_is_so_at_the_rate_of_a_clm():
    for dataset in DATASETS:
        for budget in ("quick", "paper"):
            numbers = experiment(budget, dataset)
            rates = [
                one.recipe["learning_rate"]
                for one in numbers.figures.continued
                if one.defense == "clm-adv"
            ]
            assert set(rates) == {numbers.defenses["clm"]["learning_rate"]}


def test_variations_of_one_table_have_names_of_their_own_and_differ():
    for dataset in DATASETS:
        figures = experiment("paper", dataset).figures
        for table in (figures.retrainings, figures.continued):
            assert len({one.name for one in table}) == len(table)
            assert len({str(replace(one, name="")) for one in table}) == len(table)


def test_variants_differ_and_the_combined_are_among_them():
    for dataset in DATASETS:
        figures = experiment("paper", dataset).figures
        runs = [(v.tool, str(v.parameters), v.images_per_draw) for v in figures.variants]
        assert len(set(runs)) == len(runs)
        assert all(variant in figures.variants for variant in figures.combined)
        attacks = [variant.attack for variant in figures.combined]
        assert attacks == ["pgd", "autoattack"][dataset == "cifar10" :]


def test_shorter_adversarial_training_reaches_the_edge_of_the_ball():
    for dataset in DATASETS:
        adversary = experiment("quick", dataset).defenses["ulm-adv"]
        assert adversary["steps"] * adversary["step_size"] >= adversary["eps"] * (1 - 1e-9)


def test_unknown_names_are_explained():
    with pytest.raises(LookupError, match=r"no budget 'quik' for dataset 'mnist' \(budgets: smoke"):
        experiment("quik", "mnist")
