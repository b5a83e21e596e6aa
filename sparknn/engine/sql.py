"""Small facts about Spark SQL that several modules need: quoted names, and Spark Connect."""

from __future__ import annotations


def quote_column(name: str) -> str:
    """Quote a column's name, so that Spark does not read its dots as fields of a struct."""
    return "`" + name.replace("`", "``") + "`"


def is_connect(thing: object) -> bool:
    """Whether a session, a DataFrame or a column belongs to Spark Connect, which has no JVM."""
    return type(thing).__module__.startswith("pyspark.sql.connect")
