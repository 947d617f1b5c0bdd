"""What a store holds, what of it is damaged, and how to remove it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from .store import lock_of, read_card, read_population, read_tensors


@dataclass(frozen=True)
class Entry:
    """Something in the store.

    Attributes:
        path: a file or a folder.
        state: "finished" population; "training" or "attack", unfinished; "set aside"; "leftover" of
            a killed write; "damaged", and why.
        details: of a finished population, in words.
    """

    path: Path
    state: str
    details: str = ""

    @property
    def name(self) -> str:
        """As listed, and as `prune` takes it."""
        return (
            self.path.parent.name + "/" + self.path.name if self.path.is_file() else self.path.name
        )

    @property
    def bytes(self) -> int:
        """On disk."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if not file.is_dir())


def entries(root: Path, *, thorough: bool = False) -> Iterator[Entry]:
    """Everything in a store, by name.

    Args:
        thorough: read all files, rather than cards only.
    """
    for folder in _folders(root / "populations"):
        for file in sorted(folder.iterdir()):
            if ".unusable" in file.name:
                yield Entry(file, "set aside")
            elif file.name.startswith("."):
                yield Entry(file, "leftover")
        if (folder / "card.json").exists():
            yield _population(folder, thorough)
        elif (checkpoint := folder / "checkpoint.safetensors").exists():
            yield Entry(folder, _state(checkpoint, "training", thorough))
    for folder in _folders(root / "unfinished"):
        broken = [_state(file, "", True) for file in folder.glob("*.safetensors")] * thorough
        yield Entry(folder, next((state for state in broken if state), "attack"))


def _folders(parent: Path) -> list[Path]:
    """Folders of a folder; links may lead out of the store, and are not followed."""
    if not parent.is_dir() or parent.is_symlink():
        return []
    return sorted(f for f in parent.iterdir() if f.is_dir() and not f.is_symlink())


def _population(folder: Path, thorough: bool) -> Entry:
    try:
        card = read_card(folder / "card.json")
        identity = card["identity"]
        details = f"n = {identity['submodels']}, clean {100 * card['metrics']['clean_mra']:.1f}%"
        details += f", trained in {card['training_seconds']:.0f} s"
        if thorough:
            read_population(folder)
            for path in folder.glob("epoch-*.safetensors"):
                read_tensors(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Entry(folder, f"damaged: {error}")
    return Entry(folder, "finished", details)


def _state(file: Path, sound: str, thorough: bool) -> str:
    """What to say of a file: `sound`, unless reading it shows that it is damaged."""
    try:
        if thorough:
            read_tensors(file)
    except (OSError, ValueError) as error:
        return f"damaged: {file.name}: {error}"
    return sound


def prune(root: Path, patterns: list[str], *, dry_run: bool) -> list[Entry]:
    """Remove what matches; return it.

    Args:
        patterns: shell patterns of names; none: all that is no finished population and not in use.
    """
    removed = []
    for entry in list(entries(root)):
        if patterns:
            wanted = any(fnmatch(entry.name, pattern) for pattern in patterns)
        else:
            wanted = entry.state != "finished" and not entry.state.startswith("damaged")
        if wanted and _remove(entry.path, dry_run=dry_run):
            removed.append(entry)
    return removed


def _remove(path: Path, *, dry_run: bool) -> bool:
    """Remove a file or folder unless some process is at work there; say whether."""
    folder = path if path.is_dir() else path.parent
    try:
        with FileLock(lock_of(folder), timeout=0):
            if path.is_dir() and not dry_run:
                shutil.rmtree(path)
            elif not dry_run:
                path.unlink()
    except Timeout:
        return False
    return True
