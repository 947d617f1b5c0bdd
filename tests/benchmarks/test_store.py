import pytest
from torch import nn

from benchmarks.store import Store, StoreError, weights_sha256
from defenses import Population

IDENTITY = {"defense": "ulm", "seed": 0, "alpha": 0.1}


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
    store.save(population, folder, identity=IDENTITY, seconds=3.5, parents={}, run="a")
    return store, folder, population


def test_what_is_kept_is_loaded(kept):
    store, folder, population = kept
    other = fresh()
    card = store.load_into(other, folder)
    assert weights_sha256(other) == weights_sha256(population) == card["weights_sha256"]
    assert card["training_seconds"] == 3.5
    assert not other.training


def test_nothing_kept_is_none(tmp_path):
    store = Store(tmp_path)
    assert store.load_into(fresh(), store.folder("x", {})) is None


def test_another_hyper_parameter_is_another_folder(tmp_path):
    store = Store(tmp_path)
    assert store.folder("a", IDENTITY) == store.folder("a", dict(reversed(IDENTITY.items())))
    assert store.folder("a", IDENTITY) != store.folder("a", {**IDENTITY, "alpha": 0.2})


def test_the_hash_sees_every_weight_and_buffer():
    population = fresh(0.5)
    before = weights_sha256(population)
    population.submodels[1][1].running_mean[0] += 1
    assert weights_sha256(population) != before


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: flip_a_byte(folder / "weights.safetensors"), "differ from their card"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"PK"), "retrain"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "retrain"),
        (lambda folder: (folder / "card.json").write_text("{"), "retrain"),
    ],
)
def test_what_is_corrupt_is_named_with_its_cure(kept, spoil, words):
    store, folder, _ = kept
    spoil(folder)
    with pytest.raises(StoreError, match=words) as caught:
        store.load_into(fresh(), folder)
    assert str(folder) in str(caught.value)


def test_what_the_caller_refuses_by_its_card_is_dropped(kept):
    store, folder, _ = kept
    assert store.load_into(fresh(), folder, keep=lambda card: card["run"] == "a")
    assert store.load_into(fresh(), folder, keep=lambda card: card["run"] == "b") is None
    assert store.load_into(fresh(), folder) is None


def test_what_is_forgotten_is_gone(kept):
    store, folder, _ = kept
    store.forget(folder)
    assert store.load_into(fresh(), folder) is None


def test_the_store_holds_no_pickle(kept):
    _, folder, _ = kept
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "weights.safetensors"]
