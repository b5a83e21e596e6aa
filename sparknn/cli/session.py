"""The Spark that a command runs on: the one that is there, spark-submit's, or one of our own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

from sparknn.engine.sql import is_connect


@contextmanager
def open_session(name: str, *, verbose: bool = False) -> Iterator[SparkSession]:
    """Yield a session; it is stopped at the end if it was started for this.

    Unless ``verbose``, one that is started on this machine logs nothing: errors are a line of ours.
    """
    active = SparkSession.getActiveSession()
    if active is None and "SPARK_REMOTE" not in os.environ and _has_context():
        active = SparkSession.builder.getOrCreate()
    if not verbose:
        _shorten_errors()
    session = active or _start(name)
    try:
        ours = active is None and not is_connect(session)
        if ours and not verbose and _is_local(session.conf.get("spark.master", "")):
            session.sparkContext.setLogLevel("OFF")
        yield session
    finally:
        if active is None:
            session.stop()


def _shorten_errors() -> None:
    """Keep pyspark 4 from printing errors as JSON besides raising them."""
    with suppress(ImportError):  # pyspark 3.5 does not
        from pyspark.logger import PySparkLogger

        for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
            PySparkLogger.getLogger(name).disabled = True


def _has_context() -> bool:
    from pyspark import SparkContext

    return SparkContext._active_spark_context is not None


def _start(name: str) -> SparkSession:
    """Start Spark; on this machine, with the settings that make it start wherever it can."""
    builder = SparkSession.builder.appName(name)
    if "SPARK_REMOTE" in os.environ:
        return builder.getOrCreate()
    # A client of Spark Connect may lack it.
    from pyspark import SparkConf, SparkContext

    # Starts the JVM, or joins spark-submit's, which has read spark-defaults.conf and spark-submit's
    # arguments; before it, a SparkConf is empty. There is always a master then.
    SparkContext._ensure_initialized()
    conf = SparkConf()
    if _is_local(conf.get("spark.master")):
        # Otherwise workers are the python3 on the PATH, which may lack numpy.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if "PYSPARK_GATEWAY_PORT" not in os.environ:  # not under spark-submit
            # The bar that pyspark turns on would overwrite the lines of rounds.
            builder = builder.config("spark.ui.showConsoleProgress", "false")
        # Nobody else needs to reach them, and a host name that does not resolve cannot stop them.
        if not conf.contains("spark.driver.bindAddress") and "SPARK_LOCAL_IP" not in os.environ:
            for key in ("spark.driver.bindAddress", "spark.driver.host"):
                builder = builder.config(key, conf.get(key, "127.0.0.1"))
    return builder.getOrCreate()


def _is_local(master: str | None) -> bool:
    """Whether executors are threads of the driver: ``local``, ``local[*]``, ``local[2, 4]``."""
    return master == "local" or str(master).startswith("local[")
