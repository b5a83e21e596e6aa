"""Rows that are read again in another order, or as other rows, never make another model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engines import shard_bytes, spec, vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from toys import blobs

from sparknn.engine import ingest, open_engine, scatter, spill
from sparknn.engine.decode import IngestTask
from sparknn.engine.interface import DataError
from sparknn.engine.row_order import has_fixed_order


def grouped(df: DataFrame) -> DataFrame:
    return df.groupBy((F.col("id") % 3).alias("id")).count()


@pytest.mark.parametrize(
    ("derive", "fixed"),
    [
        (lambda df: df.filter("id > 3").withColumn("x", F.rand(1)), True),
        (lambda df: df.join(F.broadcast(df), "id"), True),
        (lambda df: df.cache(), True),
        (grouped, False),
        (lambda df: grouped(df).cache().select("id"), False),
        (lambda df: df.orderBy("id"), False),
        (lambda df: df.limit(3), False),
        (lambda df: df.orderBy("id").limit(3), False),
        (lambda df: df.rdd.repartition(2).toDF(), False),
    ],
)
def test_shuffles_have_no_fixed_order(
    spark: SparkSession, derive: Callable[[DataFrame], DataFrame], fixed: bool
) -> None:
    # The numbers of a range alone are known to be in order.
    df = derive(spark.range(10).selectExpr("id * 7 % 10 as id"))
    assert has_fixed_order(df) == fixed
    df.unpersist()


def test_rows_in_another_order_behind_a_shuffle_make_the_same_shards(spark: SparkSession) -> None:
    X, y = blobs(90)

    def shards_of(order: Any, derive: Callable[[DataFrame], DataFrame]) -> Any:
        df = derive(vectors(spark, X[order], y[order], sizes=[50, 40]))
        with open_engine(df, spec(n_workers=3, validation_fraction=0.2)) as engine:
            return shard_bytes(engine)

    forward, backward = np.arange(90), np.arange(90)[::-1]

    def shuffled(df: DataFrame) -> DataFrame:
        return df.repartition(2, "label")

    assert shards_of(forward, shuffled) == shards_of(backward, shuffled)
    # By which the test could fail.
    assert shards_of(forward, lambda df: df) != shards_of(backward, lambda df: df)


def test_blocks_of_two_tries_to_read_a_partition_are_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As when an executor is lost during ingest, after some workers have read its blocks."""
    context = SimpleNamespace(partitionId=lambda: 0, taskAttemptId=lambda: 0)
    for module in (scatter, spill):
        monkeypatch.setattr(module, "TaskContext", SimpleNamespace(get=lambda: context))
        monkeypatch.setattr(module, "freeze_gc", lambda: None)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    task = IngestTask("f", (0, 1), True, False, False, False, 3, True, 0.2)

    def blocks(values: Any) -> list[tuple[Any, ...]]:
        X = pa.array([[float(v)] for v in values], pa.list_(pa.float32()))
        batch = pa.RecordBatch.from_pydict({"x": X, "y": pa.array(np.zeros(len(X)))})
        found: Iterator[pa.RecordBatch] = scatter.scatter(task, iter([batch]))
        return [tuple(row.values()) for part in found for row in part.to_pylist()]

    def handle(worker: int, rows: list[tuple[Any, ...]]) -> spill.ShardHandle:
        monkeypatch.setattr(context, "partitionId", lambda: worker)
        text = spill.spill(task, [row for row in rows if row[0] == worker])
        return spill.ShardHandle.from_json(text)

    first, again = blocks(range(50)), blocks(range(49, -1, -1))
    info = ingest.check([handle(0, first), handle(1, first)], spec())
    assert info.n_rows + info.n_validation == 50
    with pytest.raises(DataError) as caught:
        ingest.check([handle(0, first), handle(1, again)], spec())
    assert caught.value.reason == "changed"
