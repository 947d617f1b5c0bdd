"""Names for things: the registry type, and the registry of attacks."""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from .threat_model import ThreatModel

Entry = TypeVar("Entry")
F = TypeVar("F", bound=Callable[..., Tensor])
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def check_name(what: str, name: str) -> None:
    """Refuse, with a ValueError, what is not words of a-z and 0-9 joined by hyphens."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r}: use lower-case letters and digits joined by hyphens; "
            "it becomes part of file names"
        )


class Registry(Generic[Entry]):
    """A mapping from lower-case names to entries that refuses duplicates and explains misses.

    Packages outside this repository add entries through an entry point of the group
    `randomized_defense_bench.<kind>s`: a module that registers on import.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry, *, replace: bool = False) -> None:
        """Register `entry`; its name becomes part of pytest ids and file names.

        Args:
            replace: an entry that has the name already.

        Raises:
            ValueError: the name is taken, or is not words of a-z and 0-9 joined by hyphens.
        """
        check_name(f"{self.kind} name", name)
        if name in self._entries and not replace:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> Entry:
        """The entry; the LookupError for an unknown name suggests known ones."""
        if name not in self._entries:
            raise LookupError(self.explain_unknown(name))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Names in the order of registration."""
        return iter(self._entries)

    def explain_unknown(self, name: str) -> str:
        """One line that names the miss, the nearest known name and all known names."""
        near = difflib.get_close_matches(name, self._entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown {self.kind} {name!r}{hint} (known: {', '.join(self._entries)})"

    def load_plugins(self) -> None:
        """Import what installed packages offer; a broken package is named in a warning."""
        for plugin in entry_points(group=f"randomized_defense_bench.{self.kind}s"):
            try:
                plugin.load()
            except Exception as error:
                warnings.warn(f"{self.kind} plug-in {plugin.value!r} failed: {error}", stacklevel=2)


def version_of(*functions: Callable[..., object] | None) -> str:
    """What tells code without a version of its own: a hash of the files that hold functions."""
    digest = sha256()
    for function in filter(None, functions):
        function = getattr(function, "func", function)  # of a partial one
        with suppress(OSError, TypeError):  # It was compiled from elsewhere than a file or a cell.
            digest.update("".join(inspect.findsource(inspect.unwrap(function))[0]).encode())
    return digest.hexdigest()[:12]


def keyword_defaults(function: Callable[..., object]) -> dict[str, Any]:
    """The defaults of a function's arguments, by name."""
    arguments = inspect.signature(function).parameters.values()
    return {a.name: a.default for a in arguments if a.default is not a.empty}


Surrogate = Literal["submodel", "population"]
AttackKind = Literal["authors", "population", "queries", "cascade", "control", "certificate"]
Protocol = Literal["alone", "known", "average", "transfer", "doubled"]
Effective = Callable[[Mapping[str, Any], ThreatModel], dict[str, Any]]


@dataclass(frozen=True)
class Attack:
    """An attack and what it differentiates.

    Attributes:
        function: `f(model, images, labels, *, threat_model, **parameters) -> perturbed images`,
            with images (N, C, H, W) in [0, 1], labels (N,); it may draw from torch's global
            generators, which the caller seeds.
        kind: "authors": one that authors of defenses use; "population": gradients on the whole law;
            "queries": no gradients; "cascade": it combines others, and defenses are ranked by what
            it and the others leave; "control": no attack.
        surrogate: "submodel": `model` is one draw, made by the caller; "population": `model` is the
            whole population, whose forward pass draws afresh. None: a submodel for "authors" and
            "control".
        norms: the norms it can be run in.
        gradient_only: it follows gradients, for a whole batch in step: it decides nothing by the
            model's answers and leaves no image out. So it may be given a model that computes in
            bfloat16 alone, and one that answers each image of the batch with another submodel.
        effective: from its keyword arguments and a threat model to those that really run; None: as
            they are.
        version: raised when a change of the code changes results; part of a record's key. Without
            one, every change of the file counts.
        swept: its curve against eps is measured.
        protocols: beside the draw, those that it is measured under.
        doubles: its parameters that the protocol "doubled" doubles.
    """

    name: str
    function: Callable[..., Tensor]
    kind: AttackKind = "authors"
    surrogate: Surrogate | None = None
    norms: tuple[str, ...] = ("Linf",)
    gradient_only: bool = False
    version: int | str = ""
    effective: Effective | None = None
    swept: bool = False
    protocols: tuple[Protocol, ...] = ()
    doubles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        default = "submodel" if self.kind in ("authors", "control") else "population"
        object.__setattr__(self, "surrogate", self.surrogate or default)
        object.__setattr__(self, "version", self.version or version_of(self.function))

    def parameters(
        self, overrides: Mapping[str, Any], threat_model: ThreatModel | None = None
    ) -> dict[str, Any]:
        """The keyword arguments `function` is called with: its own defaults, then the overrides.

        Under a threat model those that really run; without one, as they are asked for.
        """
        parameters = keyword_defaults(self.function) | dict(overrides)
        if self.effective and threat_model:
            return self.effective(parameters, threat_model)
        return parameters


ATTACKS: Registry[Attack] = Registry("attack")
CERTIFICATES: Registry[Attack] = Registry("certificate")


def register_attack(name: str, **facts: Any) -> Callable[[F], F]:
    """Decorator that registers an attack; see `Attack` for the facts."""
    return _registering(ATTACKS, name, facts)


def register_certificate(name: str, **facts: Any) -> Callable[[F], F]:
    """Decorator that registers what bounds all attacks: `f` with the arguments of an attack's.

    Its model is one member, and it returns float64 (N,): a lower bound of the probability that the
    member classifies correctly whatever image of the ball it gets; of a deterministic one 0 or 1.
    """
    return _registering(CERTIFICATES, name, dict(kind="certificate", **facts))


def _registering(registry: Registry[Attack], name: str, facts: dict[str, Any]) -> Callable[[F], F]:
    def register(function: F) -> F:
        registry.add(name, Attack(name, function, **facts))
        return function

    return register
