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

``interface`` defines an engine, ``local`` is the reference that every engine must match to the
byte, and ``statistics`` and ``digest`` read shards without training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparknn.engine.interface import DataSpec
    from sparknn.engine.rdd import RddEngine


def open_engine(df: DataFrame, spec: DataSpec, aggregation_depth: int = 2) -> RddEngine:
    """Ingest the rows into shards and return an engine to train on them, for a ``with`` block.

    Raises
    ------
    DataError
        If the rows cannot be trained on.
    """
    # Workers import this package, too, and start faster without pyspark.ml.
    from sparknn.engine.rdd import RddEngine

    return RddEngine(df, spec, aggregation_depth)
