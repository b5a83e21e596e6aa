"""Folders on any file system that Spark knows: see that nothing is there, or remove it.

DataFrames cannot, and Spark's own way to it, for stages that are saved, is in the JVM.
"""

from __future__ import annotations

from pyspark.ml.wrapper import JavaWrapper
from pyspark.sql import SparkSession


def remove(spark: SparkSession, path: str) -> None:
    """Remove a folder and all in it, if it is there."""
    _overwrite(spark, path, True)


def is_free(spark: SparkSession, path: str) -> bool:
    """Whether there is nothing."""
    try:
        _overwrite(spark, path, False)
    except Exception as error:
        # An exception of Java's, whose class differs between versions of pyspark.
        if "already exists" not in str(error):
            raise
        return False
    return True


def _overwrite(spark: SparkSession, path: str, asked_for: bool) -> None:
    java = JavaWrapper(JavaWrapper._new_java_obj("org.apache.spark.ml.util.FileSystemOverwrite"))
    java._call_java("handleOverwrite", path, asked_for, spark._jsparkSession)
