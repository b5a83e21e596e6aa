"""Spark Connect, where there is no JVM at hand, told from the Spark where there is."""


def is_connect(thing: object) -> bool:
    """Whether a session, a DataFrame or a column is one of Spark Connect's."""
    return type(thing).__module__.startswith("pyspark.sql.connect")
