"""Ingest of many nearly empty partitions costs little more than Spark's own passes over them."""

import time
from collections.abc import Iterator

import faults
import numpy as np
import pytest
from engines import spec
from pyspark.sql import DataFrame, SparkSession

from sparknn.engine import open_engine


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with faults.session("local[2]", tmp_path_factory.mktemp("scratch")) as spark:
        yield spark


def pass_over(df: DataFrame) -> float:
    started = time.perf_counter()
    df.mapInArrow(lambda batches: batches, df.schema).write.format("noop").mode("overwrite").save()
    return time.perf_counter() - started


def ingest(df: DataFrame) -> float:
    started = time.perf_counter()
    with open_engine(df, spec()) as engine:
        seconds = time.perf_counter() - started
        assert engine.info.n_rows == df.count()
    return seconds


def test_two_thousand_partitions(spark: SparkSession) -> None:
    df = spark.range(0, 10_000, 1, 2_000).selectExpr(
        "array(sin(id), cos(id)) as features", "double(id % 2) as label"
    )
    few = df.coalesce(4)
    pass_over(few), ingest(few)
    ratios = []
    for _ in range(3):
        ours, theirs = ingest(df), pass_over(df)
        print(f"ingest {ours:.1f} s, a pass {theirs:.1f} s")
        ratios.append(ours / theirs)
    print(f"ratio: {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    assert np.median(ratios) <= 1.5
