"""The Spark that a command runs on: the one that is there, spark-submit's, or one of our own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def open_session(name: str, *, verbose: bool = False) -> Iterator[SparkSession]:
    """A session for the ``with`` block; stopped at its end if it was started for it.

    Parameters
    ----------
    name : str
        Of the application, for Spark's pages and logs.
    verbose : bool
        Whether Spark may log as much as it is set to when this command starts it. On a cluster
        it always may.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is None and SparkContext._active_spark_context is not None:
        active = SparkSession.builder.getOrCreate()
    if active is not None:
        with _one_line_errors(verbose):
            yield active
        return

    session = _start(name)
    try:
        # What goes wrong is told in one line; the log of a cluster's job is left as it is set.
        if not verbose and _is_this_machine(master(session)):
            session.sparkContext.setLogLevel("OFF")
        with _one_line_errors(verbose):
            yield session
    finally:
        session.stop()


def master(session: SparkSession) -> str:
    """Where a session's jobs run, as Spark names it."""
    return str(session.conf.get("spark.master", "a remote server"))


@contextmanager
def _one_line_errors(verbose: bool) -> Iterator[None]:
    """Keep pyspark 4 from printing an error's journey as JSON besides raising it."""
    try:
        from pyspark.logger import PySparkLogger
    except ImportError:  # pyspark 3.5
        yield
        return
    names = ("DataFrameQueryContextLogger", "SQLQueryContextLogger")
    loggers = [PySparkLogger.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = logger.disabled or not verbose
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _start(name: str) -> SparkSession:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name)
    if _remote():
        return builder.getOrCreate()
    # Starts the JVM, or joins spark-submit's: it has read spark-defaults.conf and what spark-submit
    # was told. Without one, a SparkConf is empty. There is always a master then, local[*] by
    # default.
    SparkContext._ensure_initialized()
    conf = SparkConf()
    if _is_this_machine(conf.get("spark.master", "")):
        # Workers on this machine would otherwise be the python3 on the PATH, which in a virtual
        # environment has no numpy.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        # Nobody else needs to reach them, and a host name that does not resolve cannot stop them.
        if not conf.contains("spark.driver.bindAddress") and "SPARK_LOCAL_IP" not in os.environ:
            builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
            if not conf.contains("spark.driver.host"):
                builder = builder.config("spark.driver.host", "127.0.0.1")
        # Its bar would be written over the lines that report rounds.
        if not conf.contains("spark.ui.showConsoleProgress"):
            builder = builder.config("spark.ui.showConsoleProgress", "false")
    return builder.getOrCreate()


def _is_this_machine(master: str) -> bool:
    """Whether executors are threads of the driver: ``local``, ``local[*]``, ``local[2, 4]``."""
    return master == "local" or master.startswith("local[")


def _remote() -> bool:
    """Whether Spark Connect was asked for."""
    return "SPARK_REMOTE" in os.environ
