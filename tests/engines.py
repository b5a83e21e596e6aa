"""DataFrames laid out as a test wants them, and the plain engine over what Spark's stored."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from py4j.protocol import Py4JJavaError
from pyspark.ml.linalg import DenseVector, SparseVector, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BooleanType, DataType, DoubleType, StructType

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.data.rows import ArrayRows, Rows
from sparknn.core.nn.network import Network
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine.interface import DatasetInfo, DataSpec
from sparknn.engine.local import LocalEngine
from sparknn.engine.rdd import RddEngine
from sparknn.engine.spill import ShardHandle

Array = np.ndarray[Any, Any]


def spec(**changes: Any) -> DataSpec:
    """A classification on columns ``features`` and ``label``, two workers."""
    return replace(DataSpec("features", "label", classifies=True, n_workers=2, seed=3), **changes)


def frame(
    spark: SparkSession, partitions: Sequence[Sequence[tuple[Any, ...]]], **columns: DataType
) -> DataFrame:
    """Exactly these partitions of rows, empty ones included."""
    schema = StructType()
    for name, kind in columns.items():
        schema = schema.add(name, kind)
    chunks = spark.sparkContext.parallelize([list(rows) for rows in partitions], len(partitions))
    return spark.createDataFrame(chunks.flatMap(lambda rows: rows), schema)


def vectors(
    spark: SparkSession,
    X: Array,
    y: Array,
    sizes: Sequence[int] | None = None,
    weight: Array | None = None,
    validation: Array | None = None,
    sparse: Callable[[int], bool] = lambda row: False,
) -> DataFrame:
    """Vectors and labels in partitions of ``sizes`` rows, of which some may be SparseVectors."""
    columns: dict[str, DataType] = {"features": VectorUDT(), "label": DoubleType()}
    if y.ndim == 2:
        columns["label"] = VectorUDT()
    rows: list[tuple[Any, ...]] = []
    for i, x in enumerate(X):
        label = DenseVector(y[i]) if y.ndim == 2 else float(y[i])
        rows.append((_sparse(x) if sparse(i) else DenseVector(x), label))
    if weight is not None:
        columns["weight"] = DoubleType()
        rows = [(*row, float(w)) for row, w in zip(rows, weight, strict=True)]
    if validation is not None:
        columns["validation"] = BooleanType()
        rows = [(*row, bool(v)) for row, v in zip(rows, validation, strict=True)]
    edges = np.cumsum([0, *(sizes or [len(X)])])
    assert edges[-1] == len(X)
    return frame(spark, [rows[a:b] for a, b in pairwise(edges)], **columns)


def _sparse(x: Array) -> SparseVector:
    (entries,) = np.nonzero(x)
    return SparseVector(len(x), entries.tolist(), x[entries].astype(float).tolist())


_HANDLES: dict[str, list[ShardHandle]] = {}


def handles_of(engine: Any) -> list[ShardHandle]:
    """The handles of the shards, by partition. In local mode the shards are on this disk."""
    if engine._fit_id not in _HANDLES:
        if isinstance(engine, RddEngine):
            assert engine._handles is not None
            handles = engine._handles.collect()
        else:
            (frame, _), *_ = engine._frames
            handles = [ShardHandle.from_json(text) for (text,) in frame.collect()]
        _HANDLES[engine._fit_id] = sorted(handles, key=lambda handle: handle.partition)
    return _HANDLES[engine._fit_id]


def stored(rows: Rows) -> ArrayRows:
    """All rows of a shard, dense and in memory."""
    if rows.n_rows == 0:
        return ArrayRows(np.empty((0, rows.n_features), np.float32), np.empty(0))
    chunk = rows.read(0, rows.n_rows)
    X = np.empty((rows.n_rows, rows.n_features), np.float32)
    chunk.take(np.arange(rows.n_rows), X)
    return ArrayRows(X, np.array(chunk.y), np.array(chunk.sample_weight))


def shards(engine: Any) -> list[tuple[ArrayRows, ArrayRows]]:
    """Training and validation rows of every worker, read back from its shard."""
    shape = (engine.info.n_features, engine.info.n_targets)
    pairs = [handle.rows(*shape) for handle in handles_of(engine)]
    return [(stored(rows), stored(validation)) for rows, validation in pairs]


def plain_engine(engine: Any) -> LocalEngine:
    """The reference engine over the same shards."""
    return LocalEngine(shards(engine), weight_scale_for(engine.info.weight_sum))


def shard_bytes(engine: Any) -> list[dict[str, bytes]]:
    """Every file of every shard, but not its marker, which names its location."""
    return [
        {str(path.relative_to(handle.folder)): path.read_bytes()
         for path in sorted(Path(handle.folder).glob("*/*"))}
        for handle in handles_of(engine)
    ]  # fmt: skip


def multiset(X: Array, *others: Array) -> list[tuple[float, ...]]:
    """Rows as sorted tuples: equal for the same rows in any order."""
    parts = [np.asarray(part, dtype=np.float64).reshape(len(X), -1) for part in (X, *others)]
    return sorted(map(tuple, np.hstack(parts).tolist()))


def network_for(info: DatasetInfo, *, classifies: bool = True, hidden: int = 5) -> Network:
    """A small network for the ingested rows."""
    n_out = max(info.class_weights) + 1 if classifies else info.n_targets
    loss = "crossEntropy" if classifies else "squared"
    return Network((info.n_features, hidden, max(n_out, 2) if classifies else n_out), loss=loss)


def trained(
    engine: Any, configs: Sequence[TrainConfig], averaging: AveragingConfig | None = None
) -> list[FitState]:
    """All configs trained together on an engine."""
    fits = [
        FitState(config, averaging or AveragingConfig(), engine.n_workers) for config in configs
    ]
    run(engine, fits)
    return fits


def outcome(fits: Sequence[FitState]) -> list[tuple[Any, ...]]:
    """What must be equal to the byte: networks, losses, drift and scores of every round."""
    numbers = ("loss", "validation_loss", "validation_metric", "drift", "agreement", "step_norm")
    return [
        (
            fit.theta.tobytes() if fit.theta is not None else None,
            [
                np.array([getattr(record, name) for name in numbers]).tobytes()
                for record in fit.history
            ],
            [(r.n_rows, r.n_steps, r.n_skipped, r.workers_left_out) for r in fit.history],
        )
        for fit in fits
    ]


_SCRATCH: dict[str, list[Path]] = {}


def scratch(spark: SparkSession) -> list[Path]:
    """The disks that shards are written to: what workers see as SPARK_LOCAL_DIRS."""
    sc = spark.sparkContext
    if sc.applicationId not in _SCRATCH:
        (found,) = sc.parallelize([0], 1).map(lambda _: os.environ["SPARK_LOCAL_DIRS"]).collect()
        _SCRATCH[sc.applicationId] = [Path(name) for name in found.split(",")]
    return _SCRATCH[sc.applicationId]


def leftovers(spark: SparkSession) -> list[str]:
    """Folders of shards that are still on disk."""
    return [str(path) for root in scratch(spark) for path in root.glob("sparknn-*")]


def running_jobs(spark: SparkSession) -> int:
    return len(spark.sparkContext.statusTracker().getActiveJobsIds())


def soon(spark: SparkSession, action: Callable[[], None]) -> threading.Thread:
    """Do something when a job has been running for a moment."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not running_jobs(spark) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def wait_for_tasks(spark: SparkSession, within_s: float = 60) -> None:
    """Until no task runs: Spark fails a cancelled job at once, and ends its tasks 2 seconds later.

    Meanwhile it may hand a Python worker that it is about to kill to the next job's task
    (SPARK-54217), which fails without a second try on a local master; so may it one that it has
    killed and still counts among the idle ones. Tasks that do nothing meet those first.
    """
    sc = spark.sparkContext
    tracker = sc._jsc.sc().statusTracker()
    deadline = time.monotonic() + within_s
    while n_running := sum(info.numRunningTasks() for info in tracker.getExecutorInfos()):
        assert time.monotonic() < deadline, f"{n_running} tasks still run"
        time.sleep(0.05)
    while True:
        try:
            assert sc.parallelize(range(16), 16).mapPartitions(list).count() == 16
            return
        except Py4JJavaError as error:
            if "Socket is closed" not in str(error) or time.monotonic() > deadline:
                raise
