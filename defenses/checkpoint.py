"""Networks from files of anybody's, and nothing in a file is run that was not asked for."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, KeysView, Mapping
from pathlib import Path
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..attacks.seeding import derive_seed, global_seed

# Tensors, and what parts keep as extra state.
Weights = Mapping[str, Any]

# Words for what images are normalised with, and for images.
_NORMALISING = re.compile("means?|stds?|stdev|stddev|normali[sz].*")
_MEAN, _DEVIATION = re.compile("means?"), re.compile("stds?|stdev|stddev")
_IMAGES = re.compile("images?|pixels?|inputs?|channels?|data|normali[sz].*|norm|rgb|bgr")
# What a network keeps in its state dict by a code of its own.
_EXTRA = "_extra_state"
# Where the networks that are still in use came from: the file, and what built them.
_loaded: WeakKeyDictionary[nn.Module, tuple[str, Callable[[], nn.Module]]] = WeakKeyDictionary()


class CheckpointError(ValueError):
    """A file that no network can be loaded from; the message names it and the cure."""


def load_network(
    path: Path | str,
    build: Callable[[], nn.Module] | None = None,
    *,
    sha256: str | None = None,
) -> nn.Module:
    """A network from a file: its weights for a network that `build` makes, or TorchScript.

    Weights are safetensors, or a state dict as PyTorch saves it, by itself or under any key of a
    dictionary; what a wrapper put before all names, such as DataParallel's `module.`, is left out.
    Of what else a file holds only an optimizer's state, the state of generators, and numbers that
    are not called as a normaliser's are ignored: a normaliser beside the network is part of the
    answer. Only tensors are read: nothing in such a file can run. TorchScript is a program and runs
    as one, so it must be pinned.

    Args:
        build: makes the untrained network; None: the file is TorchScript.
        sha256: of the file, in hexadecimal; another file is refused. None: any file of weights.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        OSError: the file cannot be read.
        TypeError: `build` made no module.
        CheckpointError: another file than was pinned, of no known format, or of another network; a
            network that shares weights with one from another file, and would change them.
    """
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and sha256.lower() != digest:
        raise CheckpointError(f"{path} is another file: its SHA-256 is {digest}, pinned {sha256}")
    if _is_torchscript(content):
        if sha256 is None:
            raise CheckpointError(
                f"{path} is TorchScript, a program that would run: if you trust it, pin it by its "
                f"SHA-256, {digest}"
            )
        program: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")
        program.eval()
        return program
    if build is None:
        raise CheckpointError(f"{path} is not TorchScript: say what builds its network")
    network = build()
    if not isinstance(network, nn.Module):
        raise TypeError(f"what builds the network for {path} must return a module, got {network!r}")
    shared = _shared(network)
    try:
        _fill(network, content)
        given = network.state_dict().items()
        filled = {name: tensor.clone() for name, tensor in given if _is_dense(tensor)}
        network.eval()
        kept = network.state_dict()
        if changed := [name for name in filled if name in kept and _lost(filled[name], kept[name])]:
            raise ValueError(
                f"holds {_listed(changed)}, which .eval() would change, as it merges weights that "
                "may be merged already: have the function return a network in evaluation mode"
            )
        for tensor, (value, other) in shared.items():
            if not torch.equal(tensor, value):
                raise ValueError(
                    f"would change weights that {other} filled, since both networks share them: "
                    "let the function build a new network every time"
                )
    except ValueError as error:
        for tensor, (value, _) in shared.items():
            tensor.copy_(value)
        raise CheckpointError(f"{path} {error}") from error
    except TypeError as error:
        kind = type(network).__name__
        raise CheckpointError(f"{path} is of {kind}, whose .eval() fails: {error}") from error
    _loaded[network] = str(path), build
    return network


def built_again(network: nn.Module, seed: int) -> nn.Module | None:
    """A loaded network as it is built under another seed, with the present weights of this one.

    Where that answers otherwise from seed to seed, it draws constants as it is built that its state
    dict does not hold. None: it is from no file, or cannot be built again.
    """
    if network not in _loaded:
        return None
    _, build = _loaded[network]
    try:
        with global_seed(derive_seed(seed, "built again"), torch.device("cpu")):
            again = build()
        if {*again.modules()} & {*network.modules()}:
            return None
        again.load_state_dict(network.state_dict())
        again.eval()
    # It runs code that may have been written to run once.
    except Exception:
        return None
    return again


def _shared(network: nn.Module) -> dict[Tensor, tuple[Tensor, str]]:
    """The tensors shared with networks from other files: their values, and the file."""
    others = {
        _place(tensor): file
        for other, (file, _) in _loaded.items()
        for tensor in other.state_dict().values()
    }
    return {
        tensor: (tensor.clone(), others[_place(tensor)])
        for tensor in network.state_dict().values()
        if isinstance(tensor, Tensor) and _place(tensor) in others
    }


def _is_torchscript(content: bytes) -> bool:
    try:
        names = ZipFile(io.BytesIO(content)).namelist()
    except BadZipFile:
        return False
    return any(name.endswith("/constants.pkl") for name in names)


def _fill(network: nn.Module, content: bytes) -> None:
    """Load a file's weights into a network; ValueError: they are none, or of another network."""
    own = network.state_dict().keys()
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        raise ValueError(
            f"is of {type(network).__name__}, built on the meta device, without memory"
        )
    held = _read(content)
    sets, beside = {}, []
    for where, weights in _sets(held).items():
        sets[where], others = _unwrapped(weights, own)
        unused = weights if own.isdisjoint(sets[where]) else others
        places = {_joined(where, name): weights[name] for name in unused}
        beside += [place for place, weight in places.items() if _counts(place, weight)]
    fitting = {where: weights for where, weights in sets.items() if not own.isdisjoint(weights)}
    kind = type(network).__name__
    if not fitting and own and len(sets) == 1 and not _left(network, *sets.values())[0]:
        # Known to the network by names of before, as those of weight_norm.
        fitting, beside = sets, []
    if not fitting:
        first = next(iter(sets.values()), {})
        raise ValueError(f"has none of the weights of {kind}, but {_listed(first) or 'no tensors'}")
    if len(fitting) > 1:
        raise ValueError(f"holds several sets of weights ({_listed(fitting)}): save one by itself")
    (weights,) = fitting.values()
    missing, surplus = _left(network, weights)
    differing = (("missing", missing), ("surplus", surplus))
    if said := "; ".join(f"{word} {_listed(names)}" for word, names in differing if names):
        raise ValueError(f"is not of {kind}: {said}")
    tensors = network.state_dict()
    if cut := [name for name in own & weights.keys() if _cuts(weights[name], tensors[name])]:
        wanted, there = (one[cut[0]].dtype for one in (weights, tensors))
        raise ValueError(
            f"has {wanted} in {_listed(sorted(cut))}, which {kind} would cut to {there}: build it "
            "with that type"
        )
    if beside := [*_numbers(held), *beside]:
        raise ValueError(
            f"holds {_listed(beside)} beside the weights of {kind}: if its answers need them, as a "
            "normaliser's, build a network that has them, else save its weights alone"
        )


def _joined(where: str, name: object) -> str:
    """Where something lies in a file, by all its keys."""
    return f"{where}.{name}".lstrip(".")


def _left(network: nn.Module, weights: Weights) -> tuple[list[str], list[str]]:
    """Load weights; the network's names without any, and those that it does not know."""
    try:
        missing, surplus = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise ValueError(f"is not of {type(network).__name__}: {said}") from error
    tensors = network.state_dict()
    both = [name for name in tensors if name in weights]
    shared = Counter(map(_memory, map(tensors.get, both)))
    tied = [name for name in both if shared[_memory(tensors[name])] > 1]
    if lost := [name for name in tied if _lost(weights[name], tensors[name])]:
        raise ValueError(
            f"has another {lost[0]} than {type(network).__name__} keeps, which ties it to another "
            "of its weights: build it without tying them"
        )
    # safetensors keeps weights that are tied under one of their names.
    loaded = {_place(tensors[name]) for name in tensors.keys() & weights.keys()}
    return [name for name in missing if _place(tensors[name]) not in loaded], surplus


def _memory(tensor: object) -> object:
    """Equal for tensors that share memory."""
    memory = tensor.untyped_storage().data_ptr() if _is_dense(tensor) else 0
    return memory or id(tensor)


def _lost(given: object, kept: object) -> bool:
    """Whether a tensor is no longer what was given for it."""
    if not (isinstance(given, Tensor) and _is_dense(kept)) or kept.is_quantized:
        return False
    given = given.to(kept).reshape(kept.shape)
    return not bool(((given == kept) | ((given != given) & (kept != kept))).all())


def _cuts(given: object, kept: object) -> bool:
    """Whether a tensor loses fractions or imaginary parts in another's type."""
    if not (isinstance(given, Tensor) and isinstance(kept, Tensor)):
        return False
    return (given.is_complex() and not kept.is_complex()) or (
        given.is_floating_point()
        and not (kept.is_floating_point() or kept.is_complex())
        and not torch.equal(given, given.to(kept.dtype).to(given.dtype))
    )


def _counts(place: str, tensor: object) -> bool:
    """Whether it may be part of a network's answer: no generator's state, nor a number in a log."""
    if not isinstance(tensor, Tensor):
        return False
    if tensor.ndim == 0:
        return _normalises(place)
    return tensor.ndim > 1 or tensor.dtype != torch.uint8


def _normalises(place: str) -> bool:
    """Whether keys, joined, have words for a mean or deviation, and for images."""
    words = [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", place)]
    return all(any(map(kind.fullmatch, words)) for kind in (_NORMALISING, _IMAGES))


def _numbers(loaded: object, where: str = "") -> Iterator[str]:
    """Where numbers of Python's lie that are called as a normaliser's, however deep.

    A mean and a deviation beside each other need no word for images, where they are lists.
    """
    if isinstance(loaded, (list, tuple)):
        loaded = dict(enumerate(loaded))
    if not isinstance(loaded, Mapping) or "param_groups" in loaded:
        return
    lists = {
        str(name).lower() for name, value in loaded.items() if isinstance(value, (list, tuple))
    }
    pair = any(map(_MEAN.fullmatch, lists)) and any(map(_DEVIATION.fullmatch, lists))
    for name, value in loaded.items():
        place = _joined(where, name)
        if _is_numeric(value) and (_normalises(place) or (pair and str(name).lower() in lists)):
            yield place
        elif not str(name).endswith(_EXTRA):
            yield from _numbers(value, place)


def _is_numeric(value: object) -> bool:
    """Whether it is a number, or a list of nothing else."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(_is_numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(tensor: object) -> object:
    """Equal for names of one tensor."""
    if not _is_dense(tensor):
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _is_dense(tensor: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor whose numbers lie in memory, one beside the other."""
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided and not is_lazy(tensor)


def _read(content: bytes) -> object:
    """What a file holds, tensors among it; ValueError: more than can be read without running it."""
    if content.startswith(b"version https://git-lfs"):
        raise ValueError("is a pointer of Git LFS, not the file: git lfs pull")
    try:
        return load_safetensors(content)
    except SafetensorError:
        pass
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Of bytes that are not its own, torch makes anything.
    except Exception as error:
        kind = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"holds an object of Python, {kind[1]}, and is not loaded: keep the state dict alone"
            if kind
            else "is damaged, or neither safetensors nor what PyTorch saves"
        ) from error


def _sets(loaded: object, where: str = "") -> dict[str, Weights]:
    """All dictionaries and lists of tensors but an optimizer's, however deep, by keys joined."""
    if isinstance(loaded, (list, tuple)):
        loaded = dict(enumerate(loaded))
    if not isinstance(loaded, Mapping) or loaded.keys() >= {"state", "param_groups"}:
        return {}
    tensors = {
        str(name): value
        for name, value in loaded.items()
        if isinstance(value, Tensor) or str(name).endswith(_EXTRA)
    }
    deeper = {
        key: weights
        for name, value in loaded.items()
        if not str(name).endswith(_EXTRA)
        for key, weights in _sets(value, _joined(where, name)).items()
    }
    return {where: tensors, **deeper} if tensors else deeper


def _unwrapped(weights: Weights, own: KeysView[str]) -> tuple[Weights, list[str]]:
    """The network's weights, without what a wrapper put before their names; what is beside them.

    ValueError: several wrappers hold as many of them, such as raw and averaged weights.
    """
    if not own or not own.isdisjoint(weights):
        return weights, []
    first = f".{next(iter(own))}"
    before = [name.removesuffix(first) + "." for name in weights if name.endswith(first)]
    inner = [
        {name.removeprefix(part): weights[name] for name in weights if name.startswith(part)}
        for part in before
    ]
    fits = [len(own & found.keys()) for found in inner]
    best = [part.rstrip(".") for part, fit in zip(before, fits, strict=True) if fit == max(fits)]
    if len(best) > 1:
        raise ValueError(f"holds several sets of weights ({_listed(best)}): save one by itself")
    if not best:
        return weights, []
    chosen = f"{best[0]}."
    beside = [name for name in weights if not name.startswith(chosen)]
    return inner[before.index(chosen)], beside


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join([*names][:3]) + more
