"""Outputs that would destroy what is read, or each other: seen from their names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparknn.cli.tables import Source, Target


@dataclass(frozen=True)
class Place:
    """A path or a table's name, with the key that names it.

    Parameters
    ----------
    key, path : str
    is_table : bool
    """

    key: str
    path: str
    is_table: bool = False

    @classmethod
    def of(cls, key: str, rows: Source | Target) -> Place:
        return cls(key, rows.path, rows.format == "table")


def overlapping(outputs: Sequence[Place], inputs: Sequence[Place]) -> dict[str, str]:
    """Outputs that are, hold or lie in an input or another output: a line for each, by its key."""
    found: dict[str, str] = {}
    pairs = [(output, other) for other in inputs for output in outputs]
    pairs += [(later, earlier) for earlier, later in combinations(outputs, 2)]
    for output, other in pairs:
        relation = _relation(output, other)
        if relation:
            found.setdefault(
                output.key,
                f"{output.key}: {output.path} {relation} {other.key}, {other.path}. One would "
                f"destroy the other; name a place apart from it.",
            )
    return found


def _relation(one: Place, other: Place) -> str:
    """How a place lies to another that it must not touch; empty if they are apart."""
    if one.is_table != other.is_table:
        return ""
    if one.is_table:
        return "is the table of" if _table(one.path) == _table(other.path) else ""
    found = (_between(one.path, each) for each in _alternatives(other.path))
    return next(filter(None, found), "")


def _alternatives(path: str) -> list[str]:
    """The paths that braces stand for: ``{a,b}/c`` is ``a/c`` and ``b/c``."""
    braces = re.search(r"\{([^{}]*)\}", path)
    if braces is None:
        return [path]
    before, after = path[: braces.start()], path[braces.end() :]
    return [
        each for part in braces[1].split(",") for each in _alternatives(f"{before}{part}{after}")
    ]


def _between(path: str, other: str) -> str:
    (system, mine), (other_system, its) = _parts(path), _parts(other)
    both = list(zip(mine, its, strict=False))
    if system != other_system or not all(fnmatchcase(name, pattern) for name, pattern in both):
        return ""
    by_pattern = any(name != pattern for name, pattern in both)
    if by_pattern and not system and not os.path.exists("/" + "/".join(mine)):
        # Nothing is there that a pattern could mean.
        return ""
    if len(mine) == len(its):
        return "is the path of"
    return "holds" if len(mine) < len(its) else "lies in"


def _table(name: str) -> str:
    """Spark minds neither case nor quotes, and its own catalog and database go without saying."""
    return re.sub(r"^(spark_catalog\.)?(default\.)?", "", name.replace("`", "").lower())


def _parts(path: str) -> tuple[str, list[str]]:
    """The file system and the names on the way; a path without a scheme is one of this machine."""
    match = re.match(r"([A-Za-z][\w+.-]*):(?://([^/]*))?(.*)", path, re.DOTALL)
    system, rest = (f"{match[1].lower()}://{match[2] or ''}", match[3]) if match else ("", path)
    if system.startswith("file:"):
        system = ""
    if not system:
        # No pattern can be resolved, only what stands before it.
        fixed, pattern = _before_pattern(os.path.abspath(rest))
        rest = f"{os.path.realpath(fixed)}/{pattern}"
    return system, [name for name in rest.split("/") if name not in ("", ".")]


def _before_pattern(path: str) -> tuple[str, str]:
    """A path cut before its first name that is a pattern, such as ``*.csv``."""
    names = path.split("/")
    first = next((i for i, name in enumerate(names) if re.search(r"[*?\[]", name)), len(names))
    return "/".join(names[:first]) or "/", "/".join(names[first:])
