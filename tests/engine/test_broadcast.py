"""A large value is broadcast once, and its file is removed when nothing needs it."""

import gc
import logging
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn.engine.broadcast import CachedBroadcast

LARGE = np.arange(300_000, dtype=np.float32)


def of(broadcast: CachedBroadcast[Any], spark: SparkSession) -> Any:
    return broadcast.get(LARGE, LARGE.nbytes, spark)


def test_a_small_value_travels_in_the_function(spark: SparkSession) -> None:
    small = np.ones(3)
    assert CachedBroadcast[Any]().get(small, small.nbytes, spark) is small


def test_threads_share_one_broadcast(spark: SparkSession) -> None:
    broadcast = CachedBroadcast[Any]()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: of(broadcast, spark), range(16)))
    assert isinstance(found[0], Broadcast)
    assert all(each is found[0] for each in found)


def test_a_pickled_copy_makes_a_broadcast_of_its_own(spark: SparkSession) -> None:
    broadcast = CachedBroadcast[Any]()
    sent = of(broadcast, spark)
    again = of(pickle.loads(pickle.dumps(broadcast)), spark)
    assert isinstance(again, Broadcast)
    assert again is not sent


def collected_garbage(spark: SparkSession) -> None:
    gc.collect()
    # Python reports released objects to the JVM at its next call.
    spark.sparkContext._jvm.System.gc()
    time.sleep(0.1)


def using(spark: SparkSession) -> tuple[DataFrame, Path]:
    """A DataFrame whose plan alone holds a broadcast, and the broadcast's file."""
    sent = of(CachedBroadcast[Any](), spark)
    last = F.udf(lambda x: float(sent.value[-1]) + x, "double")
    return spark.range(2).select(last("id").alias("y")), Path(sent._path)


def test_the_file_stays_as_long_as_a_plan_needs_it_and_no_longer(spark: SparkSession) -> None:
    frame, file = using(spark)
    derived = frame.where("y > 0")
    del frame
    for _ in range(3):
        collected_garbage(spark)
    assert file.exists()
    assert [row.y for row in derived.collect()] == [LARGE[-1], LARGE[-1] + 1]
    del derived
    deadline = time.monotonic() + 30
    while file.exists() and time.monotonic() < deadline:
        collected_garbage(spark)
    assert not file.exists()


def test_a_platform_that_forbids_the_clean_up_is_logged(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Forbidden:
        def __getattr__(self, _: str) -> Any:
            raise TypeError("'JavaPackage' object is not callable")

    jvm = spark.sparkContext._jvm

    class OnlySpark:
        PythonRDD = jvm.PythonRDD
        org = Forbidden()

    monkeypatch.setattr(spark.sparkContext, "_jvm", OnlySpark())
    with caplog.at_level(logging.INFO, "sparknn"):
        sent = of(CachedBroadcast[Any](), spark)
    assert "stays until the session ends (TypeError: 'JavaPackage'" in caplog.text
    monkeypatch.undo()
    sent.destroy()
