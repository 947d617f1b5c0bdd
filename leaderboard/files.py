"""Files that are either the old or the new, never half of one, and that tell if they changed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec

# More than any file of ours holds, and little enough to read into memory.
MOST_BYTES = 64 * 2**20

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z")]


class Sealed(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="schema_version", tag=1
):
    """What a sealed file holds, all of it, beside the version of its schema."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same folder, flush to disk, then rename.

    Raises:
        OSError: it could not be written; what was there before is as it was.
    """
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
        ValueError: too large, no JSON object, not a number, or changed since it was sealed.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, more than the {MOST_BYTES:,} that are read")
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"a JSON {type(content).__name__}, expected an object")
    seal = content.pop("seal", None)
    if seal is None:
        raise ValueError("no seal: written by hand, or before files had one; move it away")
    if seal != _digest(content):
        raise ValueError("changed since it was written: its seal is broken")
    return content


def set_aside(path: Path) -> Path:
    """Rename an unusable file or folder to `<name>.unusable`, or `<name>.unusable-2` and so on."""
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.unusable" + (f"-{number}" if number > 1 else ""))
        if not aside.exists():
            path.rename(aside)
            return aside
        number += 1


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits} is too large a number")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
