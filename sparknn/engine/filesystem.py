"""Paths on any file system that Spark knows: what is there, remove it, try whether one can write.

Asked of Hadoop's ``FileSystem``, by literal paths: DataFrames read ``run[1]`` as a pattern.
"""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from typing import Any

from pyspark.sql import SparkSession


def exists(spark: SparkSession, path: str) -> bool:
    """Return whether there is something at a path."""
    system, found = _resolve(spark, path)
    return bool(system.exists(found))


def list_names(spark: SparkSession, path: str) -> list[str]:
    """Return the names in a folder; none if it is not there."""
    system, found = _resolve(spark, path)
    if not system.exists(found):
        return []
    return [str(status.getPath().getName()) for status in system.listStatus(found)]


def remove(spark: SparkSession, path: str) -> None:
    """Remove a folder and all in it, if it is there."""
    system, found = _resolve(spark, path)
    if system.exists(found) and not system.delete(found, True):
        raise OSError(f"{path} was not removed.")


def qualify(spark: SparkSession, path: str) -> str:
    """Return a path with its scheme and from the root, as Spark resolves it."""
    system, found = _resolve(spark, path)
    return str(system.makeQualified(found).toString())


def literal(path: str) -> str:
    """Escape a path for Spark's readers, which take ``[]{}*?`` for a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


def probe(spark: SparkSession, folder: str) -> None:
    """Write, read and remove a small file under a folder, as the executors will do it.

    Raises
    ------
    Exception
        Of some kind, by the file system, if that is not possible.
    """
    path = os.path.join(folder, f"probe-{uuid.uuid4().hex}")
    try:
        frame = spark.createDataFrame([("probe",)], "value string")
        frame.coalesce(1).write.text(path)
        if [tuple(row) for row in spark.read.text(literal(path)).collect()] != [("probe",)]:
            raise OSError(f"what was written to {path} is not what was read.")
    except BaseException:
        # The first error is the one to report.
        with suppress(Exception):
            remove(spark, path)
        raise
    remove(spark, path)


def probe_parent(spark: SparkSession, path: str) -> None:
    """Probe the nearest folder above a path that exists, in which the path will be made.

    Raises
    ------
    Exception
        As ``probe``.
    """
    system, found = _resolve(spark, qualify(spark, path))
    parent = found.getParent()
    while parent is not None and not system.exists(parent):
        parent = parent.getParent()
    if parent is None:
        raise OSError(f"there is no folder above {path}.")
    if not system.getFileStatus(parent).isDirectory():
        raise OSError(f"{parent.toString()} is not a folder.")
    probe(spark, str(parent.toString()))


def _resolve(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Hadoop's file system and its ``Path`` for a path."""
    jvm: Any = spark._jvm
    found = jvm.org.apache.hadoop.fs.Path(path)
    settings = spark._jsparkSession.sessionState().newHadoopConf()
    return found.getFileSystem(settings), found
