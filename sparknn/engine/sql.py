"""Quote column names for Spark SQL, and recognise Spark Connect."""

from __future__ import annotations


def quote_column(name: str) -> str:
    """Quote a column's name, so that Spark does not read its dots as struct fields."""
    return "`" + name.replace("`", "``") + "`"


def is_connect(thing: object) -> bool:
    """Return whether a session, DataFrame or column belongs to Spark Connect, which has no JVM."""
    return type(thing).__module__.startswith("pyspark.sql.connect")
