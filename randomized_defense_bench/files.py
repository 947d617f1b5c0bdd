"""Files that are either the old or the new, never half of one, and that tell if they changed."""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import msgspec

from .arrays import pack, unpack
from .leaderboard import committed

# More than any such file holds, and little enough to read into memory.
MOST_BYTES = 64 * 2**20

_sorted = msgspec.json.Encoder(order="sorted")
Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z")]
Content = TypeVar("Content")
File = TypeVar("File")


class RecordError(ValueError):
    """A file that cannot be used; the message names it and says why."""


# What reading raises for content that is not what it should be.
UNUSABLE = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError),
    *(RecursionError, zlib.error),
)


class Sealed(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="schema_version", tag=1
):
    """What a sealed file holds, all of it, beside the version of its schema.

    Attributes:
        FOLDER: where such files lie under a folder of records.
    """

    FOLDER: ClassVar[str]

    @property
    def key(self) -> str:
        """The file's name without its suffix."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ValueError where parts contradict each other."""

    def path(self, results: Path) -> Path:
        """Its place for a folder of records."""
        return results / self.FOLDER / f"{self.key}.json"

    def write(self, results: Path) -> Path:
        """Write it in place of an older one of its key, and return the file's path.

        Raises:
            ValueError: content that could not be read again.
        """
        content = msgspec.to_builtins(self, enc_hook=pack)
        self._parse(content)
        write_sealed(self.path(results), content)
        return self.path(results)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one file.

        Raises:
            RecordError: it is damaged, of another version, or under another's name.
        """
        return read_named(path, cls._parse, lambda content: content.key)

    @classmethod
    def read_all(cls, results: Path) -> list[Self]:
        """All for a folder of records, in the order of their file names; see `read_each`.

        For the local one the committed ones as well, but those that it has its own of.
        """
        folders = (folder for folder in (committed(results), results) if folder)
        paths = {p.name: p for folder in folders for p in (folder / cls.FOLDER).glob("*.json")}
        return read_each([paths[name] for name in sorted(paths)], cls.read)

    @classmethod
    def _parse(cls, content: Mapping[str, Any]) -> Self:
        parsed = msgspec.convert(content, cls, dec_hook=lambda _, packed: unpack(packed))
        parsed.check()
        return parsed


def read_named(
    path: Path, parse: Callable[[dict[str, Any]], Content], key: Callable[[Content], str]
) -> Content:
    """What a sealed file holds, which must lie under the key of it; see `Sealed.read`."""
    try:
        content = parse(read_sealed(path))
        if path.stem != key(content):
            raise ValueError(f"it holds {key(content)}")
    except UNUSABLE as error:
        raise RecordError(f"{path}: not usable ({error})") from error
    return content


def read_each(files: Iterable[File], read: Callable[[File], Content]) -> list[Content]:
    """What `read` makes of each file.

    Raises:
        RecordError: of all files for which `read` raised one; the message has a line for each.
    """
    usable, problems = [], []
    for file in files:
        try:
            usable.append(read(file))
        except RecordError as error:
            problems.append(str(error))
    if problems:
        raise RecordError("\n".join(problems))
    return usable


def folder_named(text: str) -> Path:
    """A folder as it is named on a command line: absolute, with `~` for the user's home."""
    return Path(os.path.abspath(os.path.expanduser(text)))


def write_atomically(path: Path, content: bytes, *, flushed: bool = True) -> None:
    """Write to a temporary name in the same folder, flush to disk, then rename.

    Args:
        flushed: False: of many files, the caller flushes all at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if flushed:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a digest of its content."""
    sealed = {**content, "seal": _digest(content)}
    write_atomically(path, (json.dumps(sealed, indent=1, allow_nan=False) + "\n").encode())


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file.

    Raises:
        OSError: it cannot be read.
        ValueError: too large, not a JSON object, or changed since it was sealed.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, more than the {MOST_BYTES:,} that are read")
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except RecursionError:
        raise ValueError("nested too deeply") from None
    seal = content.pop("seal", None)
    if seal is None:
        raise ValueError("no seal: written by hand, or before files had one; move it away")
    # Nearly always the same bytes in a fifth of the time, but for a float such as 1e-05.
    quick = hashlib.sha256(_sorted.encode(content)).hexdigest()
    if seal != quick and seal != _digest(content):
        raise ValueError("changed since it was written: its seal is broken")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
