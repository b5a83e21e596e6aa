"""Paths on any file system that Spark knows: list, remove and replace them, and try to write.

Asked of Hadoop's ``FileSystem``, by literal paths: DataFrames read ``run[1]`` as a pattern.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyspark.sql import SparkSession

from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.worker_errors import error_class, root_cause

log = logging.getLogger("sparknn")

# Longest line of metadata that is written or read: some 200,000 rounds of history. A longer one,
# which a small compressed file may hold, could exhaust the driver's memory.
_MAX_LINE = 1 << 26


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


def write_line(spark: SparkSession, line: str, path: str, mode: str = "error") -> None:
    """Write a folder with one line of text.

    Raises
    ------
    ValueError
        If it is longer than ``read_lines`` reads.
    """
    if len(line.encode()) >= _MAX_LINE:
        raise ValueError(f"a line of {len(line):,} characters; expected at most {_MAX_LINE:,}.")
    spark.createDataFrame([(line,)], "value string").coalesce(1).write.mode(mode).text(path)


def read_lines(spark: SparkSession, path: str) -> list[str]:
    """Return the first two lines of a folder, without those that are longer than any we write."""
    limit = {"mapreduce.input.linerecordreader.line.maxlength": str(_MAX_LINE)}
    return [row[0] for row in spark.read.options(**limit).text(literal(path)).head(2)]


@contextmanager
def replacing(spark: SparkSession, path: str, *, overwrite: bool) -> Iterator[str]:
    """Yield where to write what is to be at a path. If that fails, what was there is unchanged.

    What overwrites something is written beside it, and takes its place by two renames once it is
    complete. On local disks and HDFS these take no time; object stores copy.
    """
    system, target = _resolve(spark, path)
    was_there = bool(system.exists(target))
    beside = f"{target.getParent() or target}/.sparknn-{uuid.uuid4().hex}"
    place = beside if was_there and overwrite else path
    try:
        yield place
        if place == beside:
            _swap(spark, place, path, f"{beside}-old")
    except BaseException as error:
        # Another process may have made the path in the meantime.
        made = not was_there and not isinstance(error, FileExistsError)
        if place == beside or (made and error_class(error) != "PATH_ALREADY_EXISTS"):
            _discard(spark, place)
        raise


@defer_interrupts()
def _swap(spark: SparkSession, new: str, path: str, old: str) -> None:
    """Move what is at a path away and the new in, and remove the old."""
    _rename(spark, path, old)
    try:
        _rename(spark, new, path)
    except BaseException:
        _rename(spark, old, path)
        raise
    _discard(spark, old)


def _rename(spark: SparkSession, path: str, other: str) -> None:
    system, found = _resolve(spark, path)
    if not system.rename(found, _resolve(spark, other)[1]):
        raise OSError(f"{path} could not be renamed to {other}.")


def _discard(spark: SparkSession, path: str) -> None:
    try:
        remove(spark, path)
    except Exception as error:
        # What led here is the error to raise, or the new is in place.
        log.warning("%s could not be removed: %s", path, root_cause(error))


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
