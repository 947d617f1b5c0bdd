"""Networks from the files that people have."""

import argparse
import hashlib
from pathlib import Path

import pytest
import torch
from randomized_defense_bench.defenses import CheckpointError, load_network
from safetensors.torch import load_file, save_file, save_model
from torch import nn


def build(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


IMAGES = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained():
    """A network after a step, and the optimizer that took it."""
    torch.manual_seed(0)
    network = build()
    optimizer = torch.optim.Adam(network.parameters())
    network(IMAGES).sum().backward()
    optimizer.step()
    return network.eval(), optimizer


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


class Tied(nn.Module):
    """One layer under two names, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.body = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body.weight = self.first.weight
        self.head = self.last = nn.Linear(4, 3)

    def forward(self, images):
        return self.last(self.body(self.first(images.flatten(1))))


def test_tied_weights_are_loaded_from_the_name_that_safetensors_keeps(tmp_path):
    network = Tied()
    save_model(network, tmp_path / "tied.safetensors")
    assert torch.equal(load_network(tmp_path / "tied.safetensors", Tied)(IMAGES), network(IMAGES))
    weights = load_file(tmp_path / "tied.safetensors")
    del weights["body.bias"]
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match="missing body.bias$"):
        load_network(tmp_path / "less.safetensors", Tied)


def test_two_weights_for_one_that_is_tied_are_refused(tmp_path):
    """As of a network that was untied and trained on: either would give other answers."""
    weights = Tied().state_dict()
    weights["body.weight"][0, 0] = torch.nan
    torch.save(weights, tmp_path / "tied.pt")
    load_network(tmp_path / "tied.pt", Tied)
    torch.save({**weights, "body.weight": weights["body.weight"] + 1}, tmp_path / "untied.pt")
    with pytest.raises(CheckpointError, match="has another first.weight than Tied keeps"):
        load_network(tmp_path / "untied.pt", Tied)


class Merging(nn.Linear):
    """As layers of low rank do, it adds to its weights when it is evaluated."""

    def train(self, mode=True):
        if self.training and not mode:
            self.weight.data += 1
        return super().train(mode)


def test_weights_that_evaluation_changes_are_refused(tmp_path):
    network = Merging(4, 3).eval()
    torch.save(network.state_dict(), tmp_path / "merged.pt")
    with pytest.raises(CheckpointError, match="holds weight, which .eval.. would change"):
        load_network(tmp_path / "merged.pt", lambda: Merging(4, 3))
    loaded = load_network(tmp_path / "merged.pt", lambda: Merging(4, 3).eval())
    assert torch.equal(loaded.weight, network.weight)


def test_two_weights_for_one_and_its_transpose_are_refused(tmp_path):
    def build():
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 4))
        network[2].weight = nn.Parameter(network[1].weight.data.t())
        return network

    weights = build().state_dict()
    torch.save(weights, tmp_path / "tied.pt")
    load_network(tmp_path / "tied.pt", build)
    torch.save({**weights, "2.weight": weights["2.weight"] + 1}, tmp_path / "untied.pt")
    with pytest.raises(CheckpointError, match="has another 1.weight than Sequential keeps"):
        load_network(tmp_path / "untied.pt", build)


FILES = {
    "of an average of weights": lambda w, _, path: torch.save(
        {"n_averaged": torch.tensor(4), **prefixed(w, "module.")}, path
    ),
    "with a word among them": lambda w, _, path: torch.save({**w, "epoch": 3}, path),
    "with an accuracy and a generator's state": lambda w, _, path: torch.save(
        {"net": w, "best": torch.tensor(76.1), "generator": torch.get_rng_state()}, path
    ),
    "with what training logged and set": lambda w, _, path: torch.save(
        {
            "net": w,
            "scaler": {"scale": 65536.0, "growth_factor": 2.0},
            "mean_loss": [0.5, 0.4],
            "std_acc": torch.tensor(0.1),
            "args": {"normalize": True, "meaning": 1.0, "lr": 0.1, "scale": [0.08, 1.0], "mu": 7},
            "folds": {"mean": 0.93, "std": 0.01, "best_mean_iou": 0.71, "init_std": 0.02},
        },
        path,
    ),
    "safetensors": lambda w, _, path: save_file(w, path),
    "of DataParallel": lambda w, _, path: torch.save(prefixed(w, "module."), path),
    "compiled, in safetensors": lambda w, _, path: save_file(prefixed(w, "_orig_mod."), path),
    "before torch 1.6": lambda w, _, path: torch.save(
        w, path, _use_new_zipfile_serialization=False
    ),
    "before counting batches": lambda w, _, path: torch.save(
        {name: value for name, value in w.items() if "num_batches" not in name}, path
    ),
    "of Lightning": lambda w, optimizer, path: torch.save(
        {
            "state_dict": prefixed(w, "model.module."),
            "optimizer_states": [optimizer.state_dict()],
            "epoch": 3,
        },
        path,
    ),
    **{
        key: lambda w, optimizer, path, key=key: torch.save(
            {key: w, "optimizer": optimizer.state_dict(), "accuracy": 0.9}, path
        )
        for key in ("state_dict", "model", "net")
    },
}


@pytest.mark.parametrize("kind", list(FILES))
def test_weights_are_found_in_the_file(kind, trained, tmp_path):
    network, optimizer = trained
    FILES[kind](network.state_dict(), optimizer, tmp_path / "file")
    loaded = load_network(tmp_path / "file", build)
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), network(IMAGES))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_is_run_only_if_it_is_pinned(trained, tmp_path):
    path = tmp_path / "network.ts"
    torch.jit.trace(trained[0], IMAGES).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match=f"a program that would run.* SHA-256, {digest}"):
        load_network(path)
    loaded = load_network(path, sha256=digest.upper())
    assert torch.equal(loaded(IMAGES), trained[0](IMAGES))


def test_another_file_than_was_pinned_is_refused_with_both_hashes(trained, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(trained[0].state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load_network(path, build, sha256=digest)
    with pytest.raises(CheckpointError, match=f"SHA-256 is {digest}, pinned {'0' * 64}"):
        load_network(path, build, sha256="0" * 64)


class Shifted(nn.Module):
    """It keeps a number as extra state, a whole one in a buffer, and needs to see its features."""

    def __init__(self):
        super().__init__()
        self.layer, self.shift = nn.LazyLinear(3), 0.0
        self.register_buffer("scale", torch.tensor(1))

    def get_extra_state(self):
        return {"mean": self.shift}

    def set_extra_state(self, state):
        self.shift = state["mean"]

    def forward(self, images):
        return self.layer(images.flatten(1) * self.scale + self.shift)


def test_extra_state_is_loaded_as_torch_loads_it_and_lazy_layers_too(tmp_path):
    network = Shifted()
    network.shift = 0.5
    answers = network(IMAGES)
    torch.save({"net": network.state_dict()}, tmp_path / "w")
    assert torch.equal(load_network(tmp_path / "w", Shifted)(IMAGES), answers)


@pytest.mark.parametrize(("value", "cut"), [(2.0, False), (1.5, True), (1j, True)])
def test_numbers_that_a_network_would_cut_are_refused(value, cut, tmp_path):
    network = Shifted()
    network(IMAGES)
    torch.save({**network.state_dict(), "scale": torch.tensor(value)}, tmp_path / "w")
    if cut:
        with pytest.raises(
            CheckpointError, match=r"has torch\.\w+ in scale, .* cut to torch.int64"
        ):
            load_network(tmp_path / "w", Shifted)
    else:
        assert load_network(tmp_path / "w", Shifted).scale == 2


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
def test_names_of_before_are_those_that_the_network_still_knows(tmp_path):
    def normed(norm):
        return nn.Sequential(nn.Flatten(), norm(nn.Linear(4, 3, bias=False)))

    before = normed(nn.utils.weight_norm)
    torch.save(before.state_dict(), tmp_path / "w")
    loaded = load_network(tmp_path / "w", lambda: normed(nn.utils.parametrizations.weight_norm))
    assert torch.allclose(loaded(IMAGES), before(IMAGES))
    torch.save({"net": before.state_dict(), "pixel_mean": [0.5]}, tmp_path / "w")
    with pytest.raises(CheckpointError, match="holds pixel_mean beside"):
        load_network(tmp_path / "w", lambda: normed(nn.utils.parametrizations.weight_norm))


def test_no_file_fits_a_network_whose_layers_are_hidden(trained, tmp_path):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(4, 3)]

    save_file(trained[0].state_dict(), tmp_path / "w")
    with pytest.raises(CheckpointError, match="has none of the weights of Hidden, but "):
        load_network(tmp_path / "w", Hidden)


def test_a_pointer_in_place_of_a_file_names_what_fetches_it(tmp_path):
    (tmp_path / "a.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="pointer of Git LFS, not the file: git lfs pull"):
        load_network(tmp_path / "a.pt", build)


def test_a_network_without_memory_is_refused(trained, tmp_path):
    save_file(trained[0].state_dict(), tmp_path / "w")
    with (
        torch.device("meta"),
        pytest.raises(CheckpointError, match="on the meta device, without"),
    ):
        load_network(tmp_path / "w", build)


@pytest.mark.parametrize("whole", [True, False])
def test_files_that_would_overwrite_each_other_are_refused(whole, tmp_path):
    for name in ("a", "b", "head-of-a"):
        save_file(build().state_dict(), tmp_path / name)
    trunk = build()
    network = trunk if whole else None

    def same():
        return network or nn.Sequential(*trunk[:-1], nn.Linear(5, 3))

    first = load_network(tmp_path / "a", same)
    answers = first(IMAGES)
    with pytest.raises(CheckpointError, match=f"b would change weights that {tmp_path}/a filled"):
        load_network(tmp_path / "b", same)
    assert torch.equal(first(IMAGES), answers)
    # What is the same in both changes nothing.
    weights = load_file(tmp_path / "a")
    save_file({**weights, "3.bias": weights["3.bias"] + (not whole)}, tmp_path / "head-of-a")
    # The trunk is shared, the head is not.
    changed = load_network(tmp_path / "head-of-a", same)
    assert torch.allclose(changed(IMAGES), answers + (not whole), atol=1e-5)
    torch.save({**build().state_dict(), "more": torch.ones(2)}, tmp_path / "c")
    with pytest.raises(CheckpointError, match="surplus more"):
        load_network(tmp_path / "c", same)
    assert torch.equal(first(IMAGES), answers)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda w: {"net": w, "trap": Bomb(Path("exploded"))}, "holds an object of Python"),
        (lambda w: {"net": w, "args": argparse.Namespace()}, "Python, argparse.Namespace, and is"),
        (lambda w: build(), "Python, torch.nn.modules.container.Sequential, .*the state dict"),
        (lambda w: {"best": w, "last": w}, r"several sets of weights \(best, last\)"),
        (
            lambda w: {f"{raw}.{name}": w[name] for raw in ("net", "ema.net") for name in w},
            r"several sets of weights \(net, ema.net\)",
        ),
        (lambda w: {"a.weight": w["1.weight"]}, "has none of the weights of Sequential, but a.wei"),
        (lambda w: [1, 2], "has none of the weights of Sequential, but no tensors"),
        (lambda w: {k: v for k, v in w.items() if k[0] != "1"}, "missing 1.weight, 1.bias$"),
        (lambda w: {**w, "head.bias": w["1.bias"]}, "not of Sequential: surplus head.bias$"),
        (
            lambda w: {"normaliser.mean": torch.zeros(3), **prefixed(w, "module.model.")},
            r"holds normaliser.mean beside the weights of Sequential: .*that has them, else save",
        ),
        (lambda w: {"net": w, "data": {"std": torch.ones(3)}}, "holds data.std beside"),
        (lambda w: {"net": w, "data": {"pixel_mean": [0.5, 0.4]}}, "holds data.pixel_mean beside"),
        (lambda w: {"net": w, "args": {"mean": [0.5], "std": [0.2]}}, "holds args.mean, args.std"),
        (lambda w: {**w, "imageStd": 0.25}, "holds imageStd beside the weights of Sequential"),
        (lambda w: {"net": w, "norm": {"std": torch.tensor(0.3)}}, "holds norm.std beside"),
        (lambda w: {"net": w, "normalizer": ([0.5], [0.2])}, "holds normalizer beside the weights"),
        (lambda w: {"net": w, "average": [*w.values()]}, r"holds average.0, average.1, .* beside"),
        (lambda w: build(100).state_dict(), r"not of Sequential: size mismatch for 3.bias: .*100"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_cure(
    content, words, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save(content(trained[0].state_dict()), "file.pt")
    with pytest.raises(CheckpointError, match=f"^file.pt .*{words}") as caught:
        load_network("file.pt", build)
    assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [b"", b"hello, hello, hello", b"PK\x03\x04 cut"])
def test_what_is_no_file_of_weights_is_said_to_be_none(content, tmp_path):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged, or neither safetensors nor"):
        load_network(tmp_path / "file.pt", build)


class Named(nn.Linear):
    """Its mode is hidden by a flag of the user's."""

    def __init__(self):
        super().__init__(2, 2)
        self.train = True


def test_a_network_without_modes_is_said_to_be_so(tmp_path):
    save_file(Named().state_dict(), tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"is of Named, whose .eval\(\) fails: 'bool'"):
        load_network(tmp_path / "w", Named)


def test_weights_need_what_builds_their_network(trained, tmp_path):
    save_file(trained[0].state_dict(), tmp_path / "w")
    with pytest.raises(CheckpointError, match="say what builds its network"):
        load_network(tmp_path / "w")
    with pytest.raises(TypeError, match="must return a module, got 3"):
        load_network(tmp_path / "w", lambda: 3)
