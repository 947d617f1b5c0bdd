"""What a network computes with beside its weights: classes, settings and code, as words."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dis import get_instructions
from functools import partial
from hashlib import sha256
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from ..attacks.freezing import content

# Code that its name says enough of.
_KNOWN = ("torch", "torchvision")
# What every module has, such as its mode.
_COMMON = vars(nn.Module()).keys()
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_NOT_INSTALLED = "not installed"
# Folders of installed packages, and what counts of a file that is named as a module.
_INSTALLED = {"site-packages", "dist-packages"}
_CODE = (FunctionType, type, ModuleType, int, float, str, bytes, tuple)
# What draws is no setting: it is another after every pass.
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def description(network: nn.Module, but: Iterable[tuple[nn.Module, str]] = ()) -> str:
    """Equal for networks that differ in their weights alone, as far as Python can tell.

    Of every part: its class, the numbers, words and tensors that it holds, and its shapes. Of code
    that is not torch's: its instructions, with the constants, functions and classes of the same
    package that these name; of other packages the name. All code that is not installed counts as
    one package; of a module that code names, all that it defines, and of one that is imported
    within a function, its text. Of other objects, such as an estimator of scikit-learn: all of
    their state.

    Args:
        but: parts and names of what they hold that does not count.
    """
    return "\n".join(_described(network, {(id(part), name) for part, name in but}))


def _described(value: object, seen: set[object], package: str | None = None) -> Iterator[str]:
    """Lines for any value; of functions and classes of another `package`, if given, the name."""
    if isinstance(value, MethodType):
        value = (value.__func__, value.__self__)
    if id(value) in seen:
        yield "again"
    elif value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        yield repr(value)
    elif isinstance(value, (Tensor, np.ndarray)):
        with suppress(TypeError):
            yield f"{value.shape} {sha256(content(torch.as_tensor(value))).hexdigest()}"
    elif isinstance(value, (tuple, list, set, frozenset, Mapping)):
        yield type(value).__name__
        above = id(value)
        seen.add(above)
        if isinstance(value, Mapping):
            value = [part for pair in value.items() for part in pair]
        elif isinstance(value, (set, frozenset)):
            # In an order that hashes do not change from process to process.
            value = sorted(value, key=repr)
        for part in value:
            # What a list or a mapping collects, such as features, is no setting.
            if isinstance(value, tuple) or not isinstance(part, Tensor):
                yield from _described(part, seen, package)
        seen.remove(above)
    elif isinstance(value, nn.Module):
        seen.add(id(value))
        yield from _described(_of_network(value, seen), seen)
    elif isinstance(value, partial):
        yield from _described((value.func, value.args, value.keywords), seen, package)
    elif isinstance(value, (FunctionType, type)):
        yield f"{value.__module__}.{value.__qualname__}"
        file = getattr(sys.modules.get(value.__module__), "__file__", None)
        own = _package(value.__module__, file)
        if own not in _KNOWN and package in (None, own):
            seen.add(id(value))
            for part in _of_class(value) if isinstance(value, type) else _of_function(value):
                yield from _described(part, seen, own)
    elif isinstance(value, ModuleType):
        yield value.__name__
        seen.add(id(value))
        if _package(value.__name__, getattr(value, "__file__", None)) == _NOT_INSTALLED:
            for name, part in sorted(vars(value).items()):
                if isinstance(part, _CODE) and not name.startswith("__"):
                    yield name
                    yield from _described(part, seen, _NOT_INSTALLED)
    else:
        yield str(getattr(value, "__name__", type(value).__name__))
        digest = sha256()
        # It runs code that was not written for it, and may raise anything.
        with suppress(Exception):
            _Pickler(SimpleNamespace(write=digest.update)).dump(value)
            yield digest.hexdigest()


def _package(module: str, file: str | None) -> str:
    """The package of a module; one word for all that are neither installed nor this project's."""
    top = module.partition(".")[0]
    known = top in (*_KNOWN, __name__.partition(".")[0]) or top in sys.stdlib_module_names
    return top if known or (file and _INSTALLED & {*Path(file).parts}) else _NOT_INSTALLED


def _imported(name: str, level: int, package: str) -> Iterator[str]:
    """A module that a function imports: its name, and the text of a user's own."""
    # Whether it has been imported yet says nothing; that it cannot be found may be meant.
    with suppress(Exception):
        name = resolve_name("." * level + name, package)
    yield name
    with suppress(Exception):
        spec = find_spec(name)
        if spec and spec.origin and _package(name, spec.origin) == _NOT_INSTALLED:
            yield sha256(Path(spec.origin).read_bytes()).hexdigest()


class _Pickler(pickle.Pickler):
    """Of generators the kind, and sets in order."""

    def persistent_id(self, value: object) -> object:
        if isinstance(value, (set, frozenset)):
            return sorted(map(repr, value))
        return type(value).__name__ if isinstance(value, _GENERATORS) else None


def _of_network(network: nn.Module, seen: set[object]) -> tuple[object, ...]:
    """A module's class, its code where no class holds it, and all that it holds but weights."""
    generated = isinstance(network, (fx.GraphModule, torch.jit.ScriptModule))
    code = getattr(network, "code", "") if generated else ""
    tensors: dict[str, Tensor] = dict(network.named_buffers(recurse=False))
    tensors.update(network.named_parameters(recurse=False))
    shapes = [(name, () if is_lazy(one) else tuple(one.shape)) for name, one in tensors.items()]
    apart = getattr(network, "_non_persistent_buffers_set", ())
    unsaved = [pair for pair in tensors.items() if pair[0] in apart]
    # A compiled network notes where in memory it is.
    own = () if type(network).__module__.startswith("torch._") else vars(network).items()
    settings = tuple(
        pair
        for pair in (*unsaved, *own)
        if pair[0] not in _COMMON and (id(network), pair[0]) not in seen
    )
    hooks = [hook for kind in _HOOKS for hook in getattr(network, kind, {}).values()]
    return type(network), code, shapes, settings, hooks, dict(network.named_children())


def _of_class(kind: type) -> Iterator[object]:
    yield kind.__bases__
    for name, part in vars(kind).items():
        function = getattr(part, "__func__", getattr(part, "fget", part))
        if isinstance(function, FunctionType) or not name.startswith("__"):
            yield name, function


def _of_function(function: FunctionType) -> Iterator[object]:
    """Its instructions and constants, and what it and the functions within it name."""
    yield function.__defaults__, function.__kwdefaults__
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            yield cell.cell_contents
    codes = [function.__code__]
    for code in codes:
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        yield code.co_code, [one for one in code.co_consts if not isinstance(one, CodeType)]
        read = [(i.opname, i.argval) for i in get_instructions(code)]
        loaded = {name for kind, name in read if kind == "LOAD_GLOBAL"}
        yield tuple((name, function.__globals__.get(name)) for name in sorted(loaded))
        package = function.__globals__.get("__package__") or ""
        for k, (kind, name) in enumerate(read):
            if kind == "IMPORT_NAME":
                yield from _imported(name, read[k - 2][1], package)
