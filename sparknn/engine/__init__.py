"""Run the work on Spark. An engine knows shards and rounds, not estimators.

From a DataFrame to the sums of a round:

1. *Scatter* (``decode``, ``scatter``): each source partition decodes and checks its arrow batches,
   and cuts their rows into *blocks*, each for one worker.
2. Spark shuffles the blocks, by keys that it sends to known partitions (``partitioner``).
3. *Spill* (``spill``, ``shards``): each worker writes its blocks to a *shard*, a folder of raw
   numbers on its executor's disk, and returns a *handle*, which says where the shard is and what
   it holds. The driver checks all handles (``ingest``) and caches them on their executors.
4. Round (``rdd``, ``tasks``): Spark sends a task to each handle, which trains on the shard, and
   ``treeAggregate`` adds up the workers' sums. A lost shard is written again, by evaluating its
   partition of the handles that are not cached.

Over Spark Connect, which has no RDDs, ``connect`` and ``arrow_tasks`` do the same by DataFrames,
and the driver adds up the sums. ``spark_engine`` is what both share. Shards may also be in a folder
that all executors share (``shared_folder``).

``interface`` defines an engine, ``local`` is the reference that every engine must match to the
byte, and ``statistics`` and ``digest`` read shards without training. ``offsets`` finds
values that vary too little for float32. ``row_order`` finds plans that must be sorted, so that rows
that are read again are distributed as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.sql import is_connect, refuse_encryption

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparknn.engine.interface import DataSpec
    from sparknn.engine.spark_engine import SparkEngine


def open_engine(df: DataFrame, spec: DataSpec, aggregation_depth: int = 2) -> SparkEngine:
    """Ingest the rows into shards and return an engine to train on them, for a ``with`` block.

    Raises
    ------
    DataError
        If the rows cannot be trained on.
    RuntimeError
        If the session cannot run a fit.
    """
    with defer_interrupts():
        refuse_encryption(df.sparkSession)
    # Workers import this package, too, and start faster without pyspark.ml; and a client of Spark
    # Connect may lack RDDs.
    if is_connect(df):
        from sparknn.engine.connect import ConnectEngine

        return ConnectEngine(df, spec)
    from sparknn.engine.rdd import RddEngine

    return RddEngine(df, spec, aggregation_depth)
