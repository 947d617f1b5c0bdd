"""Temporary."""

from __future__ import annotations
import re
from dataclasses import fields
from typing import Any

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# What JSON may hold for a field, by its annotation.
_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": _NUMBER,
    "float | None": (*_NUMBER, type(None)),
    "bool": (bool,),
    "bool | None": (bool, type(None)),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, str]": (dict,),
    "Mapping[str, float]": (dict,),
}
_VALUES: dict[str, tuple[type, ...]] = {"Mapping[str, str]": (str,), "Mapping[str, float]": _NUMBER}


def check_types(part: Any) -> None:
    """Refuse a field of a dataclass that is not what it is annotated as.

    Raises:
        ValueError: the message names it.
    """
    for each in fields(part):
        value, kinds = getattr(part, each.name), _KINDS.get(str(each.type))
        if kinds is None:
            continue
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if each.type in _VALUES and not wrong:
            wrong = not all(isinstance(one, _VALUES[str(each.type)]) for one in value.values())
        if wrong:
            raise ValueError(f"{each.name} is {value!r}, expected {each.type}")
