"""Whether something is at a path: asked of this machine before Spark starts, then of Spark."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("sparknn.cli")

# Anything of these may make another file system than this machine's the default one.
_CLUSTER_SETTINGS = (
    *("HADOOP_CONF_DIR", "YARN_CONF_DIR", "HADOOP_HOME", "PYSPARK_GATEWAY_PORT"),
    *("PYSPARK_SUBMIT_ARGS", "SPARK_REMOTE"),
)
_GLOB = "*?[{\\"


def local(path: str) -> bool | None:
    """Whether there is something at a path of this machine; None if it may be another's."""
    found = on_this_machine(path)
    return None if found is None else os.path.exists(found)


def on_this_machine(path: str) -> str | None:
    """A path as this machine knows it; None if it may be another's, or is a pattern."""
    if any(mark in path for mark in _GLOB):
        return None
    scheme = urlsplit(path).scheme if ":" in path.split("/", 1)[0] else ""
    if scheme == "file" and "SPARK_REMOTE" not in os.environ:
        return unquote(urlsplit(path).path)
    if scheme or ":" in path or _default_may_be_elsewhere():
        return None
    return path


def where_spark_writes(spark: SparkSession, path: str) -> str | None:
    """A path as this machine knows it, once Spark can tell; None if it is another's."""
    try:
        context = spark.sparkContext
        jvm = context._jvm
        assert jvm is not None
        place = jvm.org.apache.hadoop.fs.Path(path)
        system = place.getFileSystem(context._jsc.hadoopConfiguration())
        if not context._jsc.sc().isLocal() or system.getUri().getScheme() != "file":
            return None
        return str(system.makeQualified(place).toUri().getPath())
    except Exception:  # Spark Connect has no JVM; what else is wrong, the write will tell
        return None


def why_not_writable(path: str) -> str:
    """Why nothing can be made at a path of this machine; empty if something can.

    The answer is tried out: rights alone do not tell it, for root or of a read-only disk.
    """
    parent = Path(path).absolute().parent
    # Path.exists raises where a folder on the way may not be entered.
    while not os.path.exists(parent):
        parent = parent.parent
    if not parent.is_dir():
        return f"{parent} is no folder"
    try:
        with tempfile.TemporaryDirectory(prefix=".sparknn-", dir=parent):
            return ""
    except OSError as error:
        return f"{parent} cannot be written to ({error.strerror})"


def _default_may_be_elsewhere() -> bool:
    """Whether a path without a scheme may be on a cluster's file system."""
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:  # it was set up by somebody else
        return True
    if any(name in os.environ for name in _CLUSTER_SETTINGS):
        return True
    homes = [os.environ.get("SPARK_CONF_DIR")]
    if "SPARK_HOME" in os.environ:
        homes.append(os.path.join(os.environ["SPARK_HOME"], "conf"))
    for home in filter(None, homes):
        if os.path.exists(os.path.join(home, "core-site.xml")):
            return True
        settings = Path(home, "spark-defaults.conf")
        if settings.exists() and "spark.hadoop.fs.default" in settings.read_text(errors="replace"):
            return True
    return False


def is_missing(error: Exception) -> bool:
    """Whether an error of Spark says that there is no such path or table."""
    text = str(error)
    signs = ("PATH_NOT_FOUND", "does not exist", "TABLE_OR_VIEW_NOT_FOUND")
    return any(sign in text for sign in signs)


def exists(spark: SparkSession, path: str) -> bool:
    """Whether there is something at a path, whatever its file system; reads nothing."""
    from pyspark.errors import AnalysisException

    try:
        spark.read.text(path)
    except AnalysisException as error:
        if is_missing(error):
            return False
        raise
    return True


def remove(spark: SparkSession, path: str) -> None:
    """Remove what a failed run has begun; if that fails too, say so and no more."""
    try:
        # Spark Connect alone has no part of it.
        from sparknn.ml import folders

        folders.remove(spark, path)
    except Exception:  # the run's own failure matters more
        log.warning("What was begun at %s is still there; remove it before the next run.", path)
