"""Grids of trainings x attacks, on digits at the smoke budget."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ATTACKS, ThreatModel
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.experiment import Variant, Variation, variants
from randomized_defense_bench.benchmarks.paper.grids import as_published, how_long, measure_grid
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.benchmarks.store import StoreError
from randomized_defense_bench.defenses.counter_linking import first_weight
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.paper import grids
from randomized_defense_bench.leaderboard.paper.grids import GRIDS
from stand_ins import layer


@pytest.fixture(autouse=True)
def few_images_and_steps(with_experiment):
    """The variants that are combined; the smoke budget runs all, at their full price."""
    numbers = DATASETS["digits"].experiments["smoke"]
    pgd, auto_attack = numbers.figures.combined
    few = (replace(pgd, parameters={**pgd.parameters, "steps": 2}), auto_attack)
    with_experiment(
        replace(numbers, figures=replace(numbers.figures, images=12, variants=few, combined=few))
    )


def grid_of(options, kind):
    (grid,) = (one for one in grids.read_all(options.results) if one.layout.kind == kind)
    return grid


@pytest.mark.parametrize("kind", list(GRIDS))
def test_each_grid_is_measured_once_and_its_records_are_not_ranked(options, kind):
    _, measured, _ = measure_grid(Session(options), "digits", kind)
    layout, again, reused = measure_grid(Session(replace(options, run="second")), "digits", kind)
    assert (again, reused) == (0, sum(len(training.cells) for training in layout.trainings))
    assert measured
    grid = grid_of(options, kind)
    assert not grid.shares_only
    assert all(way.score.low <= way.score.value <= way.score.high for way in sum(grid.rows, ()))
    kept = records.read_all(grids.folder_of(options.results))
    assert not any(record.headline for record in kept)
    assert not list(options.results.glob("*.json"))


def test_a_record_is_re_used_by_another_grid_and_measured_again_when_asked(options):
    """The retrained CLM of the paper is the suite's, that variants were run on, too."""
    measure_grid(Session(options), "digits", "variants")
    once = replace(options, run="second")
    layout, _, _ = measure_grid(Session(once), "digits", "retraining")
    combined = {cell.record for cell in layout.trainings[0].cells if not cell.standard}
    (clm,) = (t for t in grid_of(options, "variants").layout.trainings if t.defense == "clm")
    assert combined == {cell.record for cell in clm.cells}
    _, measured, reused = measure_grid(Session(replace(once, rerun=True)), "digits", "variants")
    assert (measured, reused) == (4, 0)


def test_the_worst_case_is_computed_and_networks_are_told_apart(options):
    measure_grid(Session(options), "digits", "epochs")
    for row in grid_of(options, "epochs").rows:
        attacked = [way for way in row if way.cell.standard and way.attack != "none"]
        assert attacked[-1].score.value <= min(way.score.value for way in attacked[:-1])
    measure_grid(Session(options), "digits", "networks")
    way = grid_of(options, "networks").rows[0][0]
    (record,) = (
        record
        for record in records.read_all(grids.folder_of(options.results))
        if record.case.key == way.cell.record
    )
    np.testing.assert_array_equal(way.accuracies, record.correct.mean(axis=2))
    assert way.score.value == pytest.approx(record.score.value)


def test_a_grid_whose_record_is_gone_or_of_other_weights_is_left_out(options):
    session = Session(options)
    layout, _, _ = measure_grid(session, "digits", "variants")
    path = grids.folder_of(options.results) / f"{layout.trainings[0].cells[0].record}.json"
    record = records.read(path)
    path.unlink()
    assert layout.key not in [one.layout.key for one in grids.read_all(options.results)]
    records.write(replace(record, population_sha256="f" * 64), path.parent)
    assert layout.key not in [one.layout.key for one in grids.read_all(options.results)]
    records.write(record, path.parent)
    assert layout.key in [one.layout.key for one in grids.read_all(options.results)]


def test_variants_look_at_the_pair_and_the_radius_that_the_paper_did(options):
    session = Session(replace(options, eps=(0.3, 0.4)))
    for kind, eps, suffix in (("variants", 0.3, ""), ("variants-adv", 0.4, "-adv")):
        layout, _, _ = measure_grid(session, "digits", kind)
        assert layout.eps == eps
        assert set(layout.populations) == {f"ulm{suffix}", f"clm{suffix}"}


def test_variants_are_the_tool_s_own_attacks_and_not_registered():
    network = layer([1.0, 2.0], [3.0, -4.0]).requires_grad_(False)
    images, labels = torch.full((3, 1, 1, 2), 0.5), torch.tensor([0, 1, 0])
    attack = as_published(Variant(name="", attack="pgd", tool="FGSM", parameters={}))
    assert attack.name not in ATTACKS
    perturbed = attack.function(network, images, labels, threat_model=ThreatModel("Linf", 0.1))
    # The loss of class 0 grows along the second row minus the first: (2, -6).
    torch.testing.assert_close(perturbed[0].flatten(), torch.tensor([0.6, 0.4]))
    torch.testing.assert_close(perturbed[1].flatten(), torch.tensor([0.4, 0.6]))


def test_a_variant_without_a_step_size_reaches_the_edge_of_any_ball():
    network = layer([1.0, 2.0], [3.0, -4.0]).requires_grad_(False)
    images, labels = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    (variant,) = (v for v in variants(0.01) if v.name == "5 steps of eps / 5")
    for eps in (0.3, 0.4):
        perturbed = as_published(variant).function(
            network, images, labels, threat_model=ThreatModel("Linf", eps), **variant.parameters
        )
        torch.testing.assert_close(perturbed.flatten(), torch.tensor([0.5 + eps, 0.5 - eps]))


def test_after_the_last_epoch_a_population_is_itself_and_lost_epochs_are_an_error(options):
    session = Session(options)
    prepared = session.prepare("digits", "clm-adv")
    assert session.after_epochs(prepared)[-1] is prepared
    path = prepared.folder / "epoch-1.safetensors"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreError, match=r"epoch-1.safetensors.*benchmarks store prune"):
        session.after_epochs(prepared)
    path.write_bytes(content)


START = Variation(defense="ulm-adv")
TRAINED_ON = Variation(defense="ulm-adv", start=START, images=60, recipe={"epochs": 1})


def test_how_long_a_population_was_trained_on_is_said_in_words():
    assert how_long(START) == ""
    assert how_long(replace(TRAINED_ON, recipe={})) == "as many epochs of 60 images"
    further = replace(
        TRAINED_ON, start=TRAINED_ON, images=None, recipe={"epochs": 3, "learning_rate": 1e-4}
    )
    assert how_long(further) == "1 epoch of 60 images, then 3 epochs at 0.0001"


def test_a_population_is_trained_on_in_the_way_of_a_defense_and_itself_stays(options):
    session = Session(options)
    prepared = session.prepare("digits", "ulm-adv")
    ways = {
        "ulm-adv": TRAINED_ON,
        "clm-adv": replace(TRAINED_ON, defense="clm-adv"),
        "slower": replace(TRAINED_ON, recipe={"epochs": 1, "learning_rate": 1e-5}),
        "in turn": replace(TRAINED_ON, defense="clm-adv", in_turn=True),
        "longer": replace(TRAINED_ON, start=TRAINED_ON),
    }
    weights = {session.prepare_varied("digits", way).sha256 for way in ways.values()}
    assert len({prepared.sha256, *weights}) == 6
    before = first_weight(prepared.population.submodels[0])
    slower = session.prepare_varied("digits", ways["slower"])
    moved = (first_weight(slower.population.submodels[0]) - before).abs().max()
    # Two of Adam's steps of at most about the learning rate.
    assert 0 < moved < 1e-4
    assert session.prepare("digits", "ulm-adv").sha256 == prepared.sha256


def test_what_is_trained_on_is_kept_until_its_start_has_other_weights(options, tmp_path):
    options = replace(options, store=tmp_path / "store")
    first = Session(options).prepare_varied("digits", TRAINED_ON)
    later = Session(replace(options, run="later"))
    assert not later.prepare_varied("digits", TRAINED_ON).trained
    start = Session(options).prepare("digits", "ulm-adv")
    with torch.no_grad():
        first_weight(start.population.submodels[0]).add_(1.0)
    later.store.save(
        start.population, start.folder, identity={}, seconds=1.0, parents={}, run="x", metrics={}
    )
    anew = Session(replace(options, run="last")).prepare_varied("digits", TRAINED_ON)
    assert anew.trained
    assert anew.sha256 != first.sha256
