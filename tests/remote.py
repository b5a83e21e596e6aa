"""A Spark Connect server in the JVM of the tests, and a client of it in the same process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession

# What makes pyspark's functions return columns of Spark Connect.
_MODE = "SPARK_CONNECT_MODE_ENABLED"

#: For the session whose JVM the server runs in: on this machine only, at a port that is free.
SETTINGS = {
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.connect.grpc.binding.port": "0",
}


@contextmanager
def connect_mode(on: bool = True) -> Iterator[None]:
    """Let pyspark work over Spark Connect inside, or, with False, as in a classic session."""
    before = os.environ.pop(_MODE, None)
    if on:
        os.environ[_MODE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_MODE, None)
        if before is not None:
            os.environ[_MODE] = before


@contextmanager
def serving(spark: SparkSession) -> Iterator[str]:
    """Start a server in a classic session's JVM, and yield its address."""
    jvm: Any = spark._jvm
    service = getattr(
        getattr(jvm, "org.apache.spark.sql.connect.service.SparkConnectService$"), "MODULE$"
    )
    service.start(spark.sparkContext._jsc.sc())
    try:
        yield f"sc://127.0.0.1:{service.server().getPort()}"
    finally:
        service.stop(jvm.scala.Option.empty(), jvm.scala.Option.empty())


@contextmanager
def connected(address: str) -> Iterator[SparkSession]:
    """Yield a session of Spark Connect, beside the classic one, which pyspark's builder refuses."""
    from pyspark.sql.connect.session import SparkSession as RemoteSession

    with connect_mode():
        session: Any = RemoteSession.builder.remote(address).create()
    try:
        yield session
    finally:
        with connect_mode():
            session.stop()
