"""The data of the paper's figures, by hand and on digits at the smoke budget."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec import structs
from torch import nn

from attacks import ThreatModel
from benchmarks import budgets
from benchmarks.budgets import Variant, Variation, _variants
from benchmarks.evidence import (
    KINDS,
    Scene,
    as_published,
    gather,
    masks,
    pairwise_cosines,
    saliency_maps,
)
from benchmarks.session import Options, Session
from benchmarks.store import StoreError, weights_sha256
from defenses import Population
from defenses.counter_linking import first_weight
from leaderboard import evidence


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(autouse=True)
def few_images_and_steps(monkeypatch):
    """The variants that are combined; the smoke budget runs all, at their full price."""
    experiment = budgets.experiment("smoke", "digits")
    pgd, auto_attack = experiment.figures.combined
    variants = (replace(pgd, parameters={**pgd.parameters, "steps": 2}), auto_attack)
    figures = replace(experiment.figures, images=20, variants=variants, combined=variants)
    small = replace(experiment, figures=figures)
    monkeypatch.setitem(budgets._EXPERIMENTS, ("smoke", "digits"), small)


@pytest.fixture
def options(folder):
    return Options(
        budget="smoke",
        data_root=folder / "data",
        store=folder / "store",
        results=folder / "results",
        run="first",
    )


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return nn.Sequential(nn.Flatten(), layer)


def test_a_saliency_map_is_the_gradient_of_the_right_class():
    first, second = linear([1.0, 2.0], [3.0, 4.0]), linear([0.0, 1.0], [-4.0, 3.0])
    images = torch.rand(2, 1, 1, 2)
    maps = saliency_maps(Population([first, second]), images, torch.tensor([0, 1]))
    expected = [[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [-4.0, 3.0]]]
    torch.testing.assert_close(maps, torch.tensor(expected))
    # (1, 2).(0, 1) / sqrt(5) and (3, 4).(-4, 3) = 0.
    torch.testing.assert_close(pairwise_cosines(maps), torch.tensor([[2 / math.sqrt(5), 0.0]]))


def test_cosines_come_in_the_order_of_pairs():
    maps = torch.eye(3).unsqueeze(1) + torch.tensor([[[0.0, 1.0, 0.0]]])
    found = pairwise_cosines(maps).flatten()
    a, b = evidence.pairs(3)
    for value, i, j in zip(found, a, b, strict=True):
        expected = maps[i, 0] @ maps[j, 0] / maps[i, 0].norm() / maps[j, 0].norm()
        assert value == pytest.approx(expected.item())


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_is_measured_once_and_can_be_read(options, kind):
    found, _ = gather(Session(options), "digits", kind)
    again, reused = gather(Session(replace(options, run="second")), "digits", kind)
    assert reused
    assert again.key == found.key
    assert found.arrays.keys() == set(evidence.KINDS[kind])
    fresh, reused = gather(Session(replace(options, rerun=True, run="second")), "digits", kind)
    assert not reused
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(fresh.arrays[name], array, err_msg=name)


def test_networks_are_told_apart_as_attacked_and_answering(options):
    session = Session(options)
    found, _ = gather(session, "digits", "networks")
    prepared = session.prepare("digits", "clm-adv")
    record, _ = session.measure(prepared, "fgsm", found.parameters["eps"], "transfer")
    images = session.experiment("digits").figures.images
    left = record.correct[:, :, :images].mean(axis=2)
    np.testing.assert_allclose(found.arrays["clm-adv left"][0], left, atol=1e-6)
    assert (left != left.T).any()


def test_what_was_measured_on_other_weights_is_measured_again(options):
    found, _ = gather(Session(options), "digits", "masks")
    other = structs.replace(found, populations={**found.populations, "clm": "f" * 64})
    evidence.write(other, options.results)
    again, reused = gather(Session(replace(options, run="second")), "digits", "masks")
    assert not reused
    assert again.populations == found.populations


def test_what_is_damaged_is_set_aside_and_measured_again(options):
    found, _ = gather(Session(options), "digits", "masks")
    path = evidence.folder_of(options.results) / f"{found.key}.json"
    path.write_text("{")
    with pytest.warns(UserWarning, match="Set aside as"):
        _, reused = gather(Session(replace(options, run="second")), "digits", "masks")
    assert not reused
    assert path.with_name(f"{path.name}.unusable").read_text() == "{"


def test_watched_retraining_ends_as_the_stored_population(options):
    session = Session(options)
    stored = session.prepare("digits", "clm").population
    found, _ = gather(session, "digits", "trajectory")
    mask = masks(Scene(session, "digits", "masks"))["mask"].ravel()
    ulm = session.prepare("digits", "ulm").population
    for kind, place in (("linked", mask.argmax()), ("free", (~mask).argmax())):
        for column, population in ((0, ulm), (-1, stored)):
            weights = [first_weight(one)[0].flatten()[place].item() for one in population.submodels]
            np.testing.assert_array_equal(found.arrays[kind][:, column], np.float32(weights))
    assert list(found.arrays["step"]) == sorted(found.arrays["step"])


def test_what_is_watched_ends_in_time_and_is_the_beginning_of_the_whole(options, monkeypatch):
    """The cosine schedule of all epochs, of which only the first is seen."""
    key = ("smoke", "digits")
    experiment = budgets._EXPERIMENTS[key]
    recipe = replace(experiment.recipes["default"], cosine=True)
    longer = replace(
        experiment,
        recipes={**experiment.recipes, "default": recipe},
        defenses={**experiment.defenses, "clm": {**experiment.defenses["clm"], "epochs": 3}},
    )
    found = {}
    for watched in (1, 3):
        figures = replace(longer.figures, watched_epochs=watched)
        monkeypatch.setitem(budgets._EXPERIMENTS, key, replace(longer, figures=figures))
        found[watched] = gather(Session(options), "digits", "trajectory")[0].arrays
    steps = len(found[1]["step"])
    assert found[1]["step"][-1] == found[3]["step"][-1] / 3
    for name in ("linked", "free"):
        np.testing.assert_array_equal(found[1][name][:, :-1], found[3][name][:, : steps - 1])


def test_what_evidence_depends_on_is_in_its_name(options):
    plain, _ = gather(Session(options), "digits", "masks")
    more, _ = gather(Session(replace(options, submodels=3)), "digits", "masks")
    assert plain.key != more.key
    assert "attacks" in plain.parameters
    size, _ = gather(Session(options), "digits", "size")
    assert size.parameters["attacks"]["pgd"]["steps"] == 2


def test_variants_are_the_tool_s_own_attacks():
    network = linear([1.0, 2.0], [3.0, -4.0]).requires_grad_(False)
    images, labels = torch.full((3, 1, 1, 2), 0.5), torch.tensor([0, 1, 0])
    variant = Variant(name="", attack="pgd", tool="FGSM", parameters={})
    attack = as_published(variant)
    perturbed = attack.function(network, images, labels, threat_model=ThreatModel("Linf", 0.1))
    # The loss of class 0 grows along the second row minus the first: (2, -6).
    torch.testing.assert_close(perturbed[0].flatten(), torch.tensor([0.6, 0.4]))
    torch.testing.assert_close(perturbed[1].flatten(), torch.tensor([0.4, 0.6]))


def test_variants_look_at_the_pair_and_the_radius_that_the_paper_did(options):
    session = Session(replace(options, eps=(0.3, 0.4)))
    for kind, eps, suffix in (("variants", 0.3, ""), ("variants-adv", 0.4, "-adv")):
        found, _ = gather(session, "digits", kind)
        assert found.parameters["eps"] == eps
        assert set(found.populations) == {f"ulm{suffix}", f"clm{suffix}"}
        assert set(found.arrays) == {f"ulm{suffix} s", f"clm{suffix} s"}


def test_a_variant_without_a_step_size_reaches_the_edge_of_any_ball():
    network = linear([1.0, 2.0], [3.0, -4.0]).requires_grad_(False)
    images, labels = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    (variant,) = (v for v in _variants(0.01) if v.name == "5 steps of eps / 5")
    for eps in (0.3, 0.4):
        perturbed = as_published(variant).function(
            network, images, labels, threat_model=ThreatModel("Linf", eps), **variant.parameters
        )
        torch.testing.assert_close(perturbed.flatten(), torch.tensor([0.5 + eps, 0.5 - eps]))


def test_retrainings_differ_and_the_worst_case_is_the_least(options):
    session = Session(options)
    found, _ = gather(session, "digits", "retraining")
    rows = found.arrays["s"]
    for row in rows:
        assert (row[-1] <= row[1:-1].min(axis=0)).all()
    assert len({row.tobytes() for row in rows}) == len(rows)
    names = [one["name"] for one in found.parameters["retrainings"]]
    assert names == ["as the paper says", "without counter-linking", "one submodel after another"]


def test_the_last_epoch_is_the_population_itself(options):
    session = Session(options)
    found, _ = gather(session, "digits", "epochs")
    prepared = session.prepare("digits", "ulm-adv")
    (last,) = session.after_epochs(prepared)
    assert weights_sha256(last) == prepared.sha256
    clean = found.arrays["ulm-adv s"][-1, 0]
    record, _ = session.measure(prepared, "none", 0.0)
    assert (clean == record.correct.mean(axis=0)[: len(clean)]).all()


def test_a_population_is_trained_on_in_the_way_of_a_defense_and_itself_stays(options):
    session = Session(options)
    prepared = session.prepare("digits", "ulm-adv")
    start = Variation(defense="ulm-adv")
    ways = {
        defense: Variation(defense=defense, start=start, images=60, recipe={"epochs": 1})
        for defense in ("ulm-adv", "clm-adv")
    }
    ways["slower"] = replace(ways["ulm-adv"], recipe={"epochs": 1, "learning_rate": 1e-5})
    ways["in turn"] = replace(ways["clm-adv"], in_turn=True)
    ways["longer"] = replace(ways["ulm-adv"], start=ways["ulm-adv"])
    found = {name: session.prepare_varied("digits", way).sha256 for name, way in ways.items()}
    assert len({prepared.sha256, *found.values()}) == 6
    before = first_weight(prepared.population.submodels[0])
    slower = session.prepare_varied("digits", ways["slower"])
    moved = (first_weight(slower.population.submodels[0]) - before).abs().max()
    # Two of Adam's steps of at most about the learning rate.
    assert 0 < moved < 1e-4
    assert session.prepare("digits", "ulm-adv").sha256 == prepared.sha256


def test_what_is_trained_on_is_kept_until_its_start_has_other_weights(options, tmp_path):
    options = replace(options, store=tmp_path / "store")
    way = Variation(
        defense="ulm-adv", start=Variation(defense="ulm-adv"), images=60, recipe={"epochs": 1}
    )
    first = Session(options).prepare_varied("digits", way)
    later = Session(replace(options, run="later"))
    assert not later.prepare_varied("digits", way).trained
    start = Session(options).prepare("digits", "ulm-adv")
    with torch.no_grad():
        first_weight(start.population.submodels[0]).add_(1.0)
    later.store.save(
        start.population, start.folder, identity={}, seconds=1.0, parents={}, run="x", metrics={}
    )
    anew = Session(replace(options, run="last")).prepare_varied("digits", way)
    assert anew.trained
    assert anew.sha256 != first.sha256


@pytest.mark.parametrize(
    ("kind", "alone", "row"), [("retraining", "variants", 0), ("epochs", "variants-adv", -1)]
)
def test_the_combined_variants_are_those_of_the_same_name(options, kind, alone, row):
    session = Session(options)
    variants, _ = gather(session, "digits", alone)
    found, _ = gather(session, "digits", kind)
    of = {"retraining": "clm", "epochs": "clm-adv"}[kind]
    (combined,) = (
        array for name, array in found.arrays.items() if name in ("combined s", f"{of} combined s")
    )
    names = [one["name"] for one in variants.parameters["variants"]]
    assert [one["attack"] for one in found.parameters["combined"]] == ["pgd", "autoattack"]
    for number, one in enumerate(found.parameters["combined"]):
        expected = variants.arrays[f"{of} s"][names.index(one["name"])]
        np.testing.assert_array_equal(combined[row, number], expected)
    assert len({values.tobytes() for values in combined[row]}) == 2


def test_epochs_that_were_not_kept_are_an_error_that_names_the_cure(options):
    session = Session(options)
    prepared = session.prepare("digits", "clm-adv")
    path = prepared.folder / "epoch-1.safetensors"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreError, match=r"epoch-1.safetensors.*benchmarks store prune"):
        session.after_epochs(prepared)
    path.write_bytes(content)


def test_sizes_are_of_the_first_submodels(options):
    found, _ = gather(Session(options), "digits", "size")
    assert list(found.arrays["sizes"]) == [1, 2]
    for name in ("ulm", "clm"):
        worst = found.arrays[f"{name} worst s"]
        assert set(np.unique(worst[0])) <= {0.0, 1.0}
        assert set(np.unique(worst[1])) <= {0.0, 0.5, 1.0}


def test_examples_stay_in_their_ball_and_the_first_are_clean(options):
    found, _ = gather(Session(options), "digits", "examples")
    images = found.arrays["images"].astype(float) / 255
    for eps, row in zip(found.arrays["eps"], images, strict=True):
        assert np.abs(row - images[0]).max() <= eps + 1 / 255
    assert list(found.arrays["labels"]) == sorted(set(found.arrays["labels"]))


def test_a_pair_is_never_worse_off_than_its_claim(options):
    found, _ = gather(Session(options), "digits", "diversity")
    for name in ("ulm", "clm"):
        claimed, worst = found.arrays[f"{name} claimed"], found.arrays[f"{name} worst"]
        assert (worst <= claimed + 1e-6).all()
        assert found.arrays[f"{name} measures"].shape == (4, 1)


def test_the_conformity_test_trains_other_seeds(options):
    found, _ = gather(Session(options), "digits", "conformity")
    assert list(found.arrays["seeds"]) == [0, 1]
    folders = [p.name for p in (options.store / "populations").iterdir() if p.is_dir()]
    assert sum(name.startswith("digits-clm-s1") for name in folders) == 1
