"""Quote column names for Spark SQL, and ask sessions of both kinds: classic and Spark Connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def quote_column(name: str) -> str:
    """Quote a column's name, so that Spark does not read its dots as struct fields."""
    return "`" + name.replace("`", "``") + "`"


def is_connect(thing: object) -> bool:
    """Return whether a session, DataFrame or column belongs to Spark Connect, which has no JVM."""
    return type(thing).__module__.startswith("pyspark.sql.connect")


def get_conf(session: SparkSession, name: str, default: str) -> str:
    """Return a setting of Spark; the default, too, where a platform does not let users read it."""
    from pyspark.errors import AnalysisException

    try:
        return str(session.conf.get(name, default))
    except AnalysisException:
        # On Databricks serverless CONFIG_NOT_AVAILABLE, whatever the default.
        return default


def refuse_encryption(session: SparkSession) -> None:
    """Raise an error where Spark must not write rows to a disk in plain, as shards are.

    Raises
    ------
    RuntimeError
        If ``spark.io.encryption.enabled`` is set.
    """
    if get_conf(session, "spark.io.encryption.enabled", "false").lower() == "true":
        raise RuntimeError(
            "spark.io.encryption.enabled is true, and sparknn keeps the training rows unencrypted "
            "in Spark's scratch folders while fit runs. Put spark.local.dir on encrypted disks and "
            "fit in a session without this setting."
        )


def default_parallelism(session: SparkSession) -> int:
    """Return Spark's default parallelism: the slots of all executors, unless it is set."""
    if not is_connect(session):
        return max(1, session.sparkContext.defaultParallelism)
    from pyspark.sql import functions as F

    # A range has as many partitions, if it is long enough.
    partitions = session.range(1 << 16).select(F.spark_partition_id().alias("n"))
    return int(partitions.agg(F.max("n")).collect()[0][0]) + 1
