"""Damaged files: detected, named, set aside; never used and never deleted."""

import itertools
import json
import random
import shutil

import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.__main__ import main
from randomized_defense_bench.benchmarks.paths import set_aside
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.benchmarks.store import (
    FileBlocks,
    FileCheckpoint,
    Store,
    weights_sha256,
    write_tensors,
)
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.records import RecordError
from workers import options, populations


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store with a population, a checkpoint and blocks, and a folder of records."""
    folder = tmp_path_factory.mktemp("sound")
    session = Session(options(folder))
    prepared = session.prepare("digits", "ulm")
    for attack in ("none", "fgsm"):
        session.measure(prepared, attack, ThreatModel("Linf", 0.25))
    return folder, weights_sha256(prepared.population)


def flip_a_bit(content, chance):
    damaged = bytearray(content)
    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def truncate(content, chance):
    return content[: chance.randrange(len(content))]


def lose_a_block(content, chance):
    """What a file system may leave of a file: zeros in the middle."""
    start = chance.randrange(len(content))
    length = min(len(content) - start, 512)
    return content[:start] + bytes(length) + content[start + length :]


def repeat(content, chance):
    return content + content[: chance.randrange(1, len(content))]


DAMAGES = (flip_a_bit, truncate, lose_a_block, repeat)


def same_json(first, second):
    """Whether both say the same, in other white space."""
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False


def damages(content, tries):
    """Numbered contents that differ from this one."""
    numbered = (
        (k, DAMAGES[k % len(DAMAGES)](content, random.Random(k))) for k in itertools.count()
    )
    different = ((k, d) for k, d in numbered if d != content and not same_json(d, content))
    return itertools.islice(different, tries["damages"])


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_a_damaged_population_is_set_aside(sound, tmp_path, tries, name):
    folder, _ = sound
    session = Session(options(folder))
    fresh = session.prepare("digits", "ulm").population
    (original,) = populations(folder / "store")
    for number, content in damages((original / name).read_bytes(), tries):
        root = tmp_path / str(number)
        copy = root / "populations" / original.name
        shutil.copytree(original, copy)
        (copy / name).write_bytes(content)
        assert main(["store", "--store", str(root), "verify"]) == 1
        with pytest.warns(UserWarning, match=f"{original.name}.*[Ss]et aside"):
            assert Store(root).load_into(fresh, copy) is None
        left = sorted(path.name for path in copy.iterdir())
        assert left == ["card.json.unusable", "weights.safetensors.unusable"]
        shutil.rmtree(root)


def test_a_card_of_other_weights_is_not_believed(sound, tmp_path):
    folder, _ = sound
    (original,) = populations(folder / "store")
    copy = tmp_path / "populations" / original.name
    shutil.copytree(original, copy)
    fresh = Session(options(folder)).prepare("digits", "ulm").population
    with torch.no_grad():
        next(fresh.parameters()).add_(1)
    write_tensors(copy / "weights.safetensors", fresh.state_dict())
    with pytest.warns(UserWarning, match="the weights are not those of the card"):
        assert Store(tmp_path).load_into(fresh, copy) is None


def test_a_damaged_population_is_trained_again_to_the_same_weights(sound, tmp_path):
    folder, sha256 = sound
    shutil.copytree(folder, tmp_path / "copy")
    (population,) = populations(tmp_path / "copy" / "store")
    (population / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="trained again"):
        prepared = Session(options(tmp_path / "copy")).prepare("digits", "ulm")
    assert prepared.trained
    assert weights_sha256(prepared.population) == sha256


def test_a_damaged_checkpoint_is_set_aside(tmp_path, tries):
    def small():
        population = Population([torch.nn.Linear(40, 10)])
        return population, torch.optim.Adam(population.parameters())

    population, optimizer = small()
    population(torch.rand(2, 40)).sum().backward()
    optimizer.step()
    writing = FileCheckpoint(tmp_path, {})
    writing.restore(population, optimizer, 3)
    writing.save(population, optimizer, 2)
    path = tmp_path / "checkpoint.safetensors"
    for _, content in damages(path.read_bytes(), tries):
        path.write_bytes(content)
        other, optimizer = small()
        before = weights_sha256(other)
        with pytest.warns(UserWarning, match="Set aside as checkpoint.safetensors.unusable"):
            assert FileCheckpoint(tmp_path, {}).restore(other, optimizer, 3) == 0
        assert weights_sha256(other) == before


def test_damaged_blocks_are_set_aside(tmp_path, tries, monkeypatch):
    monkeypatch.setattr(FileBlocks, "AT_STAKE", 0.0)
    writing = FileBlocks(tmp_path / "sound")
    for name in "01":
        writing.put(name, torch.rand(3, 1, 8, 8), 1.0)
    first = tmp_path / "sound" / "000000.safetensors"
    for number, content in damages(first.read_bytes(), tries):
        folder = shutil.copytree(tmp_path / "sound", tmp_path / str(number))
        (folder / first.name).write_bytes(content)
        with pytest.warns(UserWarning, match="Set aside as 000000.safetensors.unusable"):
            found = FileBlocks(folder)
        assert found.get("0") is None
        assert found.get("1") is not None
        # A later block takes no other's place.
        found.put("0", torch.rand(3, 1, 8, 8), 1.0)
        assert len(list(folder.iterdir())) == 3


def test_a_damaged_record_is_refused_by_name_and_measured_again(sound, tmp_path, tries):
    folder, _ = sound
    (original,) = (folder / "results").glob("digits-ulm-fgsm-*.json")
    content = original.read_bytes()
    for _, spoiled in damages(content, tries):
        path = tmp_path / original.name
        path.write_bytes(spoiled)
        with pytest.raises(RecordError, match=original.name):
            records.read(path)

    original.write_bytes(content[:-20])
    session = Session(options(folder))
    prepared = session.prepare("digits", "ulm")
    with pytest.warns(UserWarning, match=f"Set aside as {original.name}.unusable"):
        record, reused = session.measure(prepared, "fgsm", ThreatModel("Linf", 0.25))
    assert not reused
    assert records.read(original).score == record.score
    aside = original.with_name(f"{original.name}.unusable")
    assert aside.read_bytes() == content[:-20]
    aside.unlink()


def test_what_is_set_aside_twice_has_two_names(tmp_path):
    for _ in range(3):
        (tmp_path / "x.json").write_text("{")
        set_aside(tmp_path / "x.json")
    names = ["x.json.unusable", "x.json.unusable-2", "x.json.unusable-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
