"""Python workers that Spark reuses are prepared for many short tasks."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from engines import network_for, spec, trained, vectors
from pyspark.sql import SparkSession
from toys import blobs

from sparknn.core.config import TrainConfig
from sparknn.engine import open_engine
from sparknn.engine.python_worker import freeze_gc


def test_a_worker_is_frozen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    freeze_gc.cache_clear()
    freeze_gc()
    freeze_gc()
    # The next caller in this process starts again, as in a new process.
    freeze_gc.cache_clear()
    assert frozen == [True]


def test_what_ingest_and_rounds_imported_is_not_collected_again(spark: SparkSession) -> None:
    with open_engine(vectors(spark, *blobs(40)), spec()) as engine:
        trained(engine, [TrainConfig(network_for(engine.info), max_iter=1)])

    def frozen(rows: Iterator[Any]) -> Iterator[int]:
        list(rows)
        yield gc.get_freeze_count()

    def frozen_batch(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"n": pa.array(frozen(batches), pa.int64())})

    # Spark runs RDDs and SQL in workers apart; both get what ran ours.
    in_rounds = spark.sparkContext.parallelize(range(4), 4).mapPartitions(frozen).collect()
    in_ingest = spark.range(4, numPartitions=4).mapInArrow(frozen_batch, "n long").collect()
    assert max(in_rounds) > 1000
    assert max(row["n"] for row in in_ingest) > 1000


@pytest.mark.parametrize("module", ["sparknn.engine.tasks", "sparknn.engine.scatter"])
def test_a_worker_imports_little(run_python: Callable[..., object], module: str) -> None:
    # pyspark.ml brings pandas and scipy along, which would double the time a worker takes to start.
    source = (
        f"import sys, {module}\n"
        "heavy = {'pandas', 'scipy', 'pyspark.ml', 'sparknn.ml', 'sparknn.engine.rdd'}\n"
        "assert heavy.isdisjoint(sys.modules), heavy & set(sys.modules)\n"
    )
    run_python(source)
