import re

import pytest
import torch
from randomized_defense_bench.benchmarks.__main__ import main
from randomized_defense_bench.benchmarks.store import (
    FileCheckpoint,
    Store,
    StoreError,
    read_tensors,
    weights_sha256,
)
from randomized_defense_bench.defenses import Population
from torch import nn

IDENTITY = {"defense": "ulm", "seed": 0, "alpha": 0.1, "submodels": 2}
METRICS = {"clean_mra": 0.75}


def adam(population):
    return torch.optim.Adam(population.parameters())


def fresh(fill=None):
    population = Population([nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2)])
    if fill is not None:
        for parameter in population.parameters():
            nn.init.constant_(parameter, fill)
    return population


@pytest.fixture
def kept(tmp_path):
    store = Store(tmp_path)
    folder = store.folder("digits-ulm-s0", IDENTITY)
    population = fresh(0.5)
    store.save(
        population, folder, identity=IDENTITY, seconds=3.5, parents={}, run="a", metrics=METRICS
    )
    return store, folder, population


def test_what_is_kept_is_loaded(kept):
    store, folder, population = kept
    other = fresh()
    card = store.load_into(other, folder)
    assert weights_sha256(other) == weights_sha256(population) == card["weights_sha256"]
    assert card["training_seconds"] == 3.5
    assert not other.training


@pytest.mark.parametrize(("fill", "halved"), [(0.5, True), (0.1, False)])
def test_weights_that_half_precision_holds_take_half_the_room(tmp_path, fill, halved):
    population, folder = fresh(fill), Store(tmp_path).folder("x", IDENTITY)
    facts = {"identity": IDENTITY, "seconds": 1.0, "parents": {}, "run": "a", "metrics": METRICS}
    Store(tmp_path).save(population, folder, **facts)
    tensors, _ = read_tensors(folder / "weights.safetensors")
    assert tensors["submodels.0.0.weight"].dtype == (torch.float16 if halved else torch.float32)
    other = fresh()
    card = Store(tmp_path).load_into(other, folder)
    assert weights_sha256(other) == weights_sha256(population) == card["weights_sha256"]


def test_another_hyper_parameter_is_another_folder(tmp_path):
    store = Store(tmp_path)
    assert store.load_into(fresh(), store.folder("x", {})) is None
    assert store.folder("a", IDENTITY) == store.folder("a", dict(reversed(IDENTITY.items())))
    assert store.folder("a", IDENTITY) != store.folder("a", {**IDENTITY, "alpha": 0.2})


def test_the_hash_sees_every_weight_and_buffer():
    population = fresh(0.5)
    before = weights_sha256(population)
    population.submodels[1][1].running_mean[0] += 1
    assert weights_sha256(population) != before


@pytest.mark.parametrize("released", [False, True])
def test_weights_that_are_gone_are_set_aside_with_a_warning(kept, tmp_path, released):
    store, folder, _ = kept
    (folder / "weights.safetensors").unlink()
    mine = folder
    if released:
        store = Store(tmp_path / "other", released=folder.parent)
        mine = store.folder("digits-ulm-s0", IDENTITY)
    with pytest.warns(UserWarning, match=f"{folder.name}.*Set aside as card.json.unusable"):
        assert store.load_into(fresh(), mine) is None
    assert (mine / "card.json.unusable").exists()
    assert (folder / "card.json").exists() == released


def test_a_released_population_is_copied_when_it_is_asked_for(kept, tmp_path):
    store, folder, population = kept
    FileCheckpoint(folder, every_epoch=True).save(population, torch.optim.SGD([torch.ones(1)]), 1)
    (folder / "checkpoint.safetensors").unlink()
    other = Store(tmp_path / "other", released=folder.parent)
    assert other.trained() == {weights_sha256(population)}
    copy = other.folder("digits-ulm-s0", IDENTITY)
    assert not copy.exists()
    unlike = other.folder("digits-ulm-s0", {**IDENTITY, "seed": 1})
    assert other.load_into(fresh(), unlike) is None
    loaded = fresh()
    assert other.load_into(loaded, copy) == store.load_into(fresh(), folder)
    assert weights_sha256(loaded) == weights_sha256(population)
    other.load_epochs([fresh()], copy)
    # From now on it is the store's own.
    again = Store(tmp_path / "other")
    assert again.load_into(fresh(), copy)
    assert again.trained() == {weights_sha256(population)}


def test_every_epoch_is_kept_where_it_is_wanted(tmp_path):
    population = fresh(0.5)
    for every_epoch in (False, True):
        folder = tmp_path / str(every_epoch)
        checkpoint = FileCheckpoint(folder, every_epoch=every_epoch)
        for epoch in (1, 2):
            nn.init.constant_(next(population.parameters()), epoch)
            checkpoint.save(population, adam(population), epoch)
        kept = sorted(path.name for path in folder.glob("epoch-*"))
        assert kept == ["epoch-1.safetensors", "epoch-2.safetensors"] * every_epoch


def test_epochs_are_loaded_in_their_order_and_end_in_the_population(kept):
    store, folder, population = kept
    checkpoint = FileCheckpoint(folder, every_epoch=True)
    for epoch, fill in ((1, 0.1), (2, 0.5)):
        checkpoint.save(fresh(fill), adam(population), epoch)
    first, last = fresh(), fresh()
    store.load_epochs([first, last], folder)
    assert (next(first.parameters()) == 0.1).all()
    assert weights_sha256(last) == weights_sha256(population)
    with pytest.raises(StoreError, match=f"epoch-3.*prune {folder.name}"):
        store.load_epochs([fresh(), fresh(), fresh()], folder)
    with pytest.raises(StoreError, match="the last epoch is not the finished population"):
        store.load_epochs([fresh()], folder)


def test_training_in_progress_is_not_displaced_by_a_release(kept, tmp_path):
    _, folder, population = kept
    other = Store(tmp_path / "other", released=folder.parent)
    mine = other.folder("digits-ulm-s0", IDENTITY)
    FileCheckpoint(mine).save(population, adam(population), 1)
    assert other.load_into(fresh(), mine) is None
    assert [path.name for path in mine.iterdir()] == ["checkpoint.safetensors"]
    # Nor does the release count as trained, which nobody will get from this store.
    assert other.trained() == set()


def listed(store, capsys, *arguments):
    code = main(["store", "--store", str(store.root), *arguments])
    return code, capsys.readouterr().out


def test_the_store_lists_what_it_holds(kept, capsys):
    store, folder, _ = kept
    (store.root / "unfinished" / "digits-ulm-pgd").mkdir(parents=True)
    (folder / ".card.json.abc").write_text("half")
    code, out = listed(store, capsys, "ls")
    assert code == 0
    assert re.search(rf"{folder.name} +finished", out)
    assert "n = 2, clean 75.0%, trained in 4 s" in out
    assert "digits-ulm-pgd" in out
    assert "leftover" in out


def test_verify_reads_everything_and_removes_nothing(kept, capsys):
    store, folder, _ = kept
    assert listed(store, capsys, "verify")[0] == 0
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    assert listed(store, capsys, "ls")[0] == 0
    code, out = listed(store, capsys, "verify")
    assert code == 1
    assert "damaged: changed since it was written" in out
    assert (folder / "card.json").exists()


def test_prune_removes_what_is_no_population_and_what_is_named(kept, capsys):
    store, folder, _ = kept
    (store.root / "unfinished" / "digits-ulm-pgd").mkdir(parents=True)
    (folder / "weights.safetensors.unusable").write_text("x")
    code, out = listed(store, capsys, "prune", "--dry-run")
    assert "digits-ulm-pgd" in out
    assert (store.root / "unfinished" / "digits-ulm-pgd").exists()
    code, out = listed(store, capsys, "prune")
    assert code == 0
    assert out.count("removed") == 2
    assert store.load_into(fresh(), folder)
    assert listed(store, capsys, "prune", "mnist-*") == (2, f"nothing in {store.root} matches\n")
    assert "removed digits-ulm-s0" in listed(store, capsys, "prune", "digits-ulm-*")[1]
    assert not folder.exists()
    assert listed(store, capsys, "ls") == (0, f"nothing in {store.root}\n")


def test_what_the_caller_refuses_by_its_card_stays_until_it_is_replaced(kept):
    store, folder, population = kept
    FileCheckpoint(folder, every_epoch=True).save(population, adam(population), 1)
    assert store.load_into(fresh(), folder, keep=lambda card: card["run"] == "a")
    untouched = fresh(0.25)
    before = weights_sha256(untouched)
    assert store.load_into(untouched, folder, keep=lambda card: card["run"] == "b") is None
    assert weights_sha256(untouched) == before
    # But for what its training left beside it.
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "weights.safetensors"]

    def keep(card):
        raise RuntimeError("the parent cannot be had")

    with pytest.raises(RuntimeError, match="cannot be had"):
        store.load_into(fresh(), folder, keep=keep)
    assert store.load_into(fresh(), folder)


def test_weights_of_another_architecture_are_not_copied_in_part(kept):
    store, folder, _ = kept
    other = Population([nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))] * 2)
    before = weights_sha256(other)
    with pytest.warns(UserWarning, match="another architecture"):
        assert store.load_into(other, folder) is None
    assert weights_sha256(other) == before


def test_a_checkpoint_from_another_parent_is_not_resumed(tmp_path):
    first, second = fresh(0.5), fresh(0.25)
    writing = FileCheckpoint(tmp_path, {"ulm": "aa"})
    writing.restore(first, adam(first), 3)
    writing.save(first, adam(first), 2)
    assert FileCheckpoint(tmp_path, {"ulm": "aa"}).restore(second, adam(second), 3) == 2
    with pytest.warns(UserWarning, match="it started from other populations"):
        assert FileCheckpoint(tmp_path, {"ulm": "bb"}).restore(second, adam(second), 3) == 0


def test_a_link_is_neither_followed_nor_pruned(kept, capsys, tmp_path):
    store, _, _ = kept
    home = tmp_path / "home"
    home.mkdir()
    (home / ".secret").write_text("mine")
    (store.root / "populations" / "x").symlink_to(home)
    (store.root / "unfinished").symlink_to(home)
    assert ".secret" not in listed(store, capsys, "ls")[1]
    listed(store, capsys, "prune")
    assert (home / ".secret").read_text() == "mine"
