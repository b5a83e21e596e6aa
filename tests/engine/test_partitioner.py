"""Blocks go where they are meant to: our hash is Spark's."""

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparknn.engine.partitioner import hash_int, partition_keys


def test_hash_is_sparks(spark: SparkSession) -> None:
    edges = [0, 1, 2**31 - 1, -1, -(2**31), 2**16, -(2**16)]
    drawn = np.random.default_rng(0).integers(-(2**31), 2**31, size=2000).tolist()
    numbers = [*edges, *drawn]
    df = spark.createDataFrame([(n,) for n in numbers], "n int")
    found = {row.n: row.h for row in df.select("n", F.hash("n").alias("h")).collect()}
    assert found == {n: hash_int(n) for n in numbers}


@pytest.mark.parametrize("n_partitions", [1, 2, 3, 7, 64, 1000])
def test_every_partition_has_a_key_of_its_own(n_partitions: int) -> None:
    keys = partition_keys(n_partitions)
    assert len(set(keys)) == n_partitions
    assert [hash_int(key) % n_partitions for key in keys] == list(range(n_partitions))
    assert min(keys) == 0


@pytest.mark.parametrize("adaptive", ["true", "false"])
@pytest.mark.parametrize("n_partitions", [1, 3, 8])
def test_spark_sends_each_key_to_its_partition(
    spark: SparkSession, n_partitions: int, adaptive: str
) -> None:
    keys = partition_keys(n_partitions)
    before = spark.conf.get("spark.sql.adaptive.enabled")
    spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    try:
        df = spark.createDataFrame([(key,) for key in keys], "key int").repartition(4)
        placed = df.repartition(n_partitions, "key").select("key", F.spark_partition_id())
        assert dict(placed.collect()) == {key: n for n, key in enumerate(keys)}
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", before)
