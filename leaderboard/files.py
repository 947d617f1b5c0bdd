"""Files that are either the old or the new, never half of one, and that tell if they changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import msgspec

# More than any file of ours holds, and little enough to read into memory.
MOST_BYTES = 64 * 2**20
# A disk with less free is full: a record and its page would not fit.
LEAST_FREE = 2**20

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z")]


class Sealed(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="schema_version", tag=1
):
    """What a sealed file holds, all of it, beside the version of its schema."""


def folder_named(text: str) -> Path:
    """A folder as it is named on a command line: absolute, with `~` for the user's home."""
    return Path(os.path.abspath(os.path.expanduser(text)))


def obstacle(folder: Path) -> str | None:
    """What keeps files from being written to a folder, made if need be; None: nothing does."""
    there = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), folder)
    if not os.path.isdir(there):
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written to"
    if shutil.disk_usage(there).free < LEAST_FREE:
        return f"the disk of {there} is full"
    return None


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same folder, flush to disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
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
    if seal != _digest(content):
        raise ValueError("changed since it was written: its seal is broken")
    return content


def set_aside(path: Path) -> Path:
    """Rename an unusable file or folder to `<name>.unusable`, or `<name>.unusable-2` and so on."""
    for number in count(1):
        aside = path.with_name(f"{path.name}.unusable" + (f"-{number}" if number > 1 else ""))
        if not aside.exists():
            break
    return path.rename(aside)


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
