"""A column's name in an expression."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A column's name, safe where Spark would read its dots as fields of a struct."""
    return "`" + name.replace("`", "``") + "`"
