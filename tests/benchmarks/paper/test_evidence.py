"""The data of the paper's figures, by hand and on digits at the smoke budget."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec import structs
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.paper.evidence import (
    KINDS,
    Scene,
    gather,
    masks,
    pairwise_cosines,
    saliency_maps,
)
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.counter_linking import first_weight
from randomized_defense_bench.leaderboard.paper import evidence
from stand_ins import layer


def test_a_saliency_map_is_the_gradient_of_the_right_class():
    first, second = layer([1.0, 2.0], [3.0, 4.0]), layer([0.0, 1.0], [-4.0, 3.0])
    images = torch.rand(2, 1, 1, 2)
    maps = saliency_maps(Population([first, second]), images, torch.tensor([0, 1]))
    expected = [[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [-4.0, 3.0]]]
    torch.testing.assert_close(maps, torch.tensor(expected))
    # (1, 2).(0, 1) / sqrt(5) and (3, 4).(-4, 3) = 0.
    torch.testing.assert_close(pairwise_cosines(maps), torch.tensor([[2 / math.sqrt(5), 0.0]]))


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_is_measured_once_and_can_be_read(options, kind):
    found, *_ = gather(Session(options), "digits", kind)
    again, _, reused = gather(Session(replace(options, run="second")), "digits", kind)
    assert reused
    assert again.key == found.key
    assert found.arrays.keys() == set(evidence.KINDS[kind])
    fresh, _, reused = gather(Session(replace(options, rerun=True, run="second")), "digits", kind)
    assert not reused
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(fresh.arrays[name], array, err_msg=name)


def test_what_was_measured_on_other_weights_is_measured_again(options):
    found, *_ = gather(Session(options), "digits", "masks")
    other = structs.replace(found, populations={**found.populations, "clm": "f" * 64})
    other.write(options.results)
    again, _, reused = gather(Session(replace(options, run="second")), "digits", "masks")
    assert not reused
    assert again.populations == found.populations


def test_what_is_damaged_is_set_aside_and_measured_again(options):
    found, *_ = gather(Session(options), "digits", "masks")
    path = found.path(options.results)
    path.write_text("{")
    with pytest.warns(UserWarning, match="Set aside as"):
        *_, reused = gather(Session(replace(options, run="second")), "digits", "masks")
    assert not reused
    assert path.with_name(f"{path.name}.unusable").read_text() == "{"


def test_watched_retraining_ends_as_the_stored_population(options):
    session = Session(options)
    stored = session.prepare("digits", "clm").population
    found, *_ = gather(session, "digits", "trajectory")
    mask = masks(Scene(session, "digits"))["mask"].ravel()
    ulm = session.prepare("digits", "ulm").population
    for kind, place in (("linked", mask.argmax()), ("free", (~mask).argmax())):
        for column, population in ((0, ulm), (-1, stored)):
            weights = [first_weight(one)[0].flatten()[place].item() for one in population.submodels]
            np.testing.assert_array_equal(found.arrays[kind][:, column], np.float32(weights))
    assert list(found.arrays["step"]) == sorted(found.arrays["step"])


def test_what_is_watched_is_the_beginning_of_the_whole(options, with_experiment):
    """The cosine schedule of all epochs, of which only the first is seen."""
    numbers = DATASETS["digits"].experiments["smoke"]
    recipe = replace(numbers.recipes["default"], cosine=True)
    longer = replace(
        numbers,
        recipes={**numbers.recipes, "default": recipe},
        defenses={**numbers.defenses, "clm": {**numbers.defenses["clm"], "epochs": 3}},
    )
    found = {}
    for watched in (1, 3):
        with_experiment(replace(longer, figures=replace(longer.figures, watched_epochs=watched)))
        found[watched] = gather(Session(options), "digits", "trajectory")[0].arrays
    steps = len(found[1]["step"])
    assert found[1]["step"][-1] == found[3]["step"][-1] / 3
    for name in ("linked", "free"):
        np.testing.assert_array_equal(found[1][name][:, :-1], found[3][name][:, : steps - 1])


def test_what_is_measured_fits_together(options):
    """Sizes are of the first networks, examples in their ball, and the worst case below a claim."""
    arrays = {kind: gather(Session(options), "digits", kind)[0].arrays for kind in KINDS}
    assert list(arrays["size"]["sizes"]) == [1, 2]
    images = arrays["examples"]["images"].astype(float) / 255
    for eps, row in zip(arrays["examples"]["eps"], images, strict=True):
        assert np.abs(row - images[0]).max() <= eps + 1 / 255
    pairs = arrays["diversity"]
    for name in ("ulm", "clm"):
        worst = arrays["size"][f"{name} worst s"]
        assert set(np.unique(worst[0])) <= {0.0, 1.0}
        assert set(np.unique(worst[1])) <= {0.0, 0.5, 1.0}
        assert (pairs[f"{name} worst"] <= pairs[f"{name} claimed"] + 1e-6).all()
        assert pairs[f"{name} measures"].shape == (4, 1)
    # Other seeds are trained.
    assert list(arrays["conformity"]["seeds"]) == [0, 1]
    assert len([*(options.store / "populations").glob("digits-clm-s1-*/card.json")]) == 1
