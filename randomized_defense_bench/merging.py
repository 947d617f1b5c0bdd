"""The records of several runs in one folder, as if one run had measured them."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.json import encode as _encode

from .files import UNUSABLE, read_each, read_sealed, write_atomically
from .leaderboard.records import SCHEMA_VERSION, Case, RecordError

# Where files lie under a folder of records that are not among the records of the page.
SUBFOLDERS = ("peers", "evidence", "speed", "studies/grids")
# What two measurements of one case have in common; of files without them any two do.
ANSWERS = ("case", "correct", "selecting", "population_sha256")
# What tells populations apart; of each the page takes one training.
POPULATION = (
    *("dataset", "sha256", "budget", "seed", "defense", "defense_version", "defense_parameters"),
    *("submodels", "draws", "probabilities"),
)


def merge(folders: Iterable[Path], into: Path) -> int:
    """Put the sealed files of some folders, at any depth, into one; return how many are new.

    Of two that hold the same answers, the one that ranks stays, or else the later.

    Raises:
        RecordError: files that are damaged or under another's name, that answer a case otherwise
            than another does, or that are of other weights than another of the population; the
            message has a line for each, and nothing is written.
    """
    chosen: dict[str, str] = {}
    weights: dict[bytes, dict[str, str]] = defaultdict(dict)
    places = {p: at for folder in (into, *folders) for p, at in _files(folder)}

    def choose(path: str) -> None:
        place = places[path]
        try:
            content = read_sealed(Path(path))
            if "/" not in place or place.startswith("peers/"):
                case = _checked(content, Path(path).stem)
                identity = _encode([case.get(name) for name in POPULATION], order="sorted")
                weights[identity].setdefault(content["population_sha256"], path)
            if other := chosen.get(place):
                earlier = read_sealed(Path(other))
                if any(content.get(name) != earlier.get(name) for name in ANSWERS):
                    raise ValueError(f"it answers its case otherwise than {other}")
                if _standing(content) <= _standing(earlier):
                    return
        except UNUSABLE as error:
            raise RecordError(f"{path}: {error}") from error
        chosen[place] = path

    read_each(places, choose)
    if trained_twice := [paths for paths in weights.values() if len(paths) > 1]:
        raise RecordError("\n".join(map(_trained_twice, trained_twice)))
    new = {into / place: path for place, path in chosen.items() if str(into / place) != path}
    for target, path in new.items():
        try:
            # Files are replaced, never changed, so that two names may be one.
            os.link(path, target)
        except OSError:
            write_atomically(target, Path(path).read_bytes(), flushed=False)
    os.sync()
    return len(new)


def _files(folder: str | Path) -> Iterator[tuple[str, str]]:
    """Its JSON files at any depth, by name, and where each belongs under a folder of records.

    Links are followed, once each.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise RecordError(f"{error.filename}: cannot be read ({error.strerror})") from error

    seen = set[str]()
    for where, inside, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(where)) in seen:
            inside.clear()
            continue
        seen.add(real)
        inside.sort()
        inner = "/" + Path(os.path.relpath(where, folder)).as_posix()
        below = next((f"{known}/" for known in SUBFOLDERS if inner.endswith(f"/{known}")), "")
        for name in sorted(names):
            if name.endswith(".json"):
                yield f"{where}/{name}", below + name


def _checked(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The case of a record; ValueError: the file is of another version, or another's."""
    if (version := content["schema_version"]) != SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this version reads {SCHEMA_VERSION}")
    case: dict[str, Any] = content["case"]
    if (key := msgspec.convert(case, Case).key) != name:
        raise ValueError(f"it holds {key}")
    return case


def _trained_twice(paths: Mapping[str, str]) -> str:
    """What is wrong with records of one population that were measured on several weights."""
    (one, path), (other, beside), *_ = paths.items()
    return (
        f"{path} and {beside} are of one population, trained twice (population_sha256 {one[:12]} "
        f"and {other[:12]}), and the page takes one training: run all shards on a common --store, "
        "or train before they start, and measure the others again"
    )


def _standing(content: Mapping[str, Any]) -> tuple[bool, bool, str]:
    pictured = content.get("examples") is not None
    return bool(content.get("headline")), pictured, str(content.get("measured_at"))
