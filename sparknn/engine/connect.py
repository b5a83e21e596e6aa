"""Run rounds over Spark Connect, by operations of DataFrames alone.

The plan up to the blocks is a temporary view: it is analysed once, and so always reads the same
files and calls the same functions. Handles are a local checkpoint: Spark sends each task to its
shard, and nothing but a lost executor can make it evaluate the plan again. A persisted DataFrame
would recover by itself, but whoever appends to the table that a fit reads would make Spark drop it,
and the next round would train on other rows. A round is ``handles.mapInArrow``, with the networks
in its closure, and the driver adds up the workers' sums as they arrive.

Where all executors share a directory (``DataSpec.shard_dir``), handles are values in the plan, and
tasks run anywhere. Where there is none and tasks do not find their shards again, as in sessions
without caches, every round reads the rows and writes the shards again.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any, TypeVar

import pyspark
from pyspark import cloudpickle
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import merge_sums
from sparknn.core.training.runner import RoundResult
from sparknn.core.types import Float64Array
from sparknn.engine import arrow_tasks, tasks
from sparknn.engine.arrow_tasks import HOST_DDL, LOCATED_DDL, PIECE_DDL, RESULT_DDL, ROW_BYTES
from sparknn.engine.broadcast import MAX_CLOSURE_BYTES
from sparknn.engine.ingest import shard_blocks
from sparknn.engine.interface import DataSpec
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.spark_engine import REWRITES, SparkEngine, lost_too_often, plural
from sparknn.engine.spill import HANDLE_DDL, ShardHandle
from sparknn.engine.worker_errors import changed_rows, translate_worker_errors

log = logging.getLogger("sparknn")
T = TypeVar("T")

# What is too large for a closure is sent in pieces of this size.
_PIECE_BYTES = 8 * ROW_BYTES


class ConnectEngine(SparkEngine):
    """Run rounds as operations of Spark Connect.

    Parameters
    ----------
    df : DataFrame
    spec : DataSpec
    """

    def __init__(self, df: DataFrame, spec: DataSpec) -> None:
        _check_versions(df.sparkSession)
        self._view = ""
        # Handles, and the partitions of which they are the last ones.
        self._frames: list[tuple[DataFrame, set[int]]] = []
        super().__init__(df, spec)

    def _write_shards(self, df: DataFrame, offset: Float64Array | None) -> list[ShardHandle]:
        blocks, self._task = shard_blocks(df, self._spec, self._fit_id, offset)
        self._view = f"sparknn_{self._fit_id}"
        blocks.createTempView(self._view)
        return self._write(set(range(self.n_workers)))

    def _write(self, partitions: set[int]) -> list[ShardHandle]:
        """Write some shards, and keep their handles where tasks find the shards."""
        task = partial(arrow_tasks.spill_some, self._task, frozenset(partitions))
        frame = self._spark.table(self._view).mapInArrow(task, HANDLE_DDL)
        if self._spec.shard_dir:
            handles = _read(frame.collect())
            self._frames.append((self._in_plan(handles), set(partitions)))
        elif self.rereads or (kept := self._checkpoint(frame)) is None:
            handles = _read(frame.collect())
            self._read_every_round(handles)
        else:
            rows = kept.mapInArrow(arrow_tasks.locate_shards, LOCATED_DDL).collect()
            handles = _read(rows)
            if 2 * sum(row.kept for row in rows) > len(rows):
                self._frames.append((kept, set(partitions)))
            else:
                self._read_every_round(handles)
        # There are none at the first time.
        checksums = dict(enumerate(self._checksums))
        if any(each.checksum != checksums.get(each.partition, each.checksum) for each in handles):
            raise changed_rows()
        return handles

    def _in_plan(self, handles: list[ShardHandle]) -> DataFrame:
        """Return a DataFrame with a partition for each handle, which no executor has to keep."""
        texts = F.array(*(F.lit(handle.without_counts().to_json()) for handle in handles))
        numbers = self._spark.range(0, len(handles), 1, len(handles))
        return numbers.select(texts[F.col("id").cast("int")].alias("handle"))

    def _checkpoint(self, frame: DataFrame) -> DataFrame | None:
        """Evaluate a DataFrame and keep its rows on executors; None if the session cannot."""
        try:
            return frame.localCheckpoint()
        except Exception:
            try:
                self._spark.range(1).localCheckpoint()
            except Exception:
                # Each platform has its own error for what it does not support.
                return None
            raise

    def _read_every_round(self, handles: list[ShardHandle]) -> None:
        if not self.rereads:
            log.warning(
                "This session does not keep data on its executors: every round reads and shuffles "
                "all rows again, and short ones take some 25 times as long. Set shardDir to a "
                "directory that all executors share, or make rounds few and long (localEpochs, "
                "period='auto')."
            )
        self.rereads = True
        self._frames.clear()
        self._folders |= {handle.location for handle in handles}
        self._remove_shards()

    def _n_executors(self) -> int:
        return 0

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Train every request on every worker; equal requests and rounds give equal bytes."""
        started = time.perf_counter()
        task = partial(tasks.train_shard, list(requests), round_, self._weight_scale, self._shape)
        what = f"sparknn: round {round_ + 1}, {len(requests)} networks"
        with self._cancellable(what), translate_worker_errors():
            totals = reduce(merge_sums, (found for _, found in self._map_shards(task)))
        return RoundResult(totals, job_s=time.perf_counter() - started)

    def _map_shards(self, task: Callable[[ShardHandle], T]) -> Iterator[tuple[int, T]]:
        sent = cloudpickle.dumps(task, protocol=5)
        wanted = set(range(self.n_workers))
        for left in reversed(range(REWRITES + 1)):
            missing = set()
            try:
                for partition, result in self._results(sent, wanted):
                    if result is None:
                        missing.add(partition)
                    else:
                        yield partition, result
                    wanted.remove(partition)
            except Exception:
                if not left or self._has_handles():
                    raise
                self._rewrite_all()
                wanted |= missing
                continue
            assert not wanted, f"no result of workers {sorted(wanted)}"
            if not missing:
                return
            if left:
                log.warning("%s lost or damaged: writing again.", plural(len(missing), "shard"))
                self._rewrite(missing)
                wanted = missing
        raise lost_too_often(missing)

    def _rewrite(self, missing: set[int]) -> None:
        for _, partitions in self._frames:
            partitions -= missing
        self._folders |= {handle.location for handle in self._write(missing)}

    def _has_handles(self) -> bool:
        """Return whether all handles can be read, which end with the executors that hold them."""
        try:
            return all(frame.count() >= 0 for frame, _ in self._frames)
        except Exception:
            # What went wrong in a task, Spark reports in many ways.
            return False

    def _rewrite_all(self) -> None:
        log.warning("Shards were lost with their executors; writing all again.")
        self._frames.clear()
        self._remove_shards()
        self._folders = {handle.location for handle in self._write(set(range(self.n_workers)))}

    def _results(self, task: bytes, wanted: set[int]) -> Iterator[tuple[int, Any]]:
        """Run a pickled task, and yield partitions and results as they arrive."""
        with self._sent(task) as (closure, pieces):
            runs = [self._run_on_rows(closure, wanted)] if self.rereads else []
            for frame, partitions in self._frames:
                if chosen := frozenset(partitions & wanted):
                    rows = frame if pieces is None else frame.crossJoin(F.broadcast(pieces))
                    run = partial(arrow_tasks.run_on_shards, closure, chosen)
                    runs.append(rows.mapInArrow(run, RESULT_DDL))
            parts = []
            # Streams, so that no more than one worker's message is in memory here.
            for last, value in reduce(DataFrame.union, runs).toLocalIterator():
                parts.append(value)
                if last:
                    data = b"".join(parts)
                    parts.clear()
                    yield pickle.loads(data)

    def _run_on_rows(self, task: bytes | None, wanted: set[int]) -> DataFrame:
        if task is None:
            raise RuntimeError(
                f"The networks of a round exceed {MAX_CLOSURE_BYTES >> 20} MiB, more than Spark "
                "Connect sends with rows that are read in every round. Set shardDir to a directory "
                "that all executors share."
            )
        checksums = {partition: self._checksums[partition] for partition in wanted}
        run = partial(arrow_tasks.run_on_rows, self._task, task, checksums)
        return self._spark.table(self._view).mapInArrow(run, RESULT_DDL)

    @contextmanager
    def _sent(self, value: bytes) -> Iterator[tuple[bytes | None, DataFrame | None]]:
        """Yield a value for a closure if it is small enough, or else a DataFrame of its pieces."""
        if len(value) <= MAX_CLOSURE_BYTES:
            yield value, None
            return
        views = []
        try:
            for start in range(0, len(value), _PIECE_BYTES):
                # Views keep the pieces at the server without a copy in its caches, which would
                # stay there until the session ends.
                views.append(f"{self._view}_{start}")
                part = value[start : start + _PIECE_BYTES]
                emit = partial(arrow_tasks.send_piece, start // ROW_BYTES, part)
                self._spark.range(1).mapInArrow(emit, PIECE_DDL).createTempView(views[-1])
            yield None, reduce(DataFrame.union, map(self._spark.table, views))
        finally:
            for view in views:
                self._spark.catalog.dropTempView(view)

    def _session_ended(self) -> bool:
        return bool(getattr(self._spark, "is_stopped", False))

    def _release(self) -> None:
        self._spark.interruptTag(self._tag)
        # Its blocks go with the last reference to a checkpoint.
        self._frames.clear()
        if self._view:
            self._spark.catalog.dropTempView(self._view)

    def _run_everywhere(self, task: Callable[[Iterable[int]], Iterator[str]]) -> list[str]:
        # As many tasks as there are slots.
        tasks_ = self._spark.range(1 << 16).mapInArrow(
            partial(arrow_tasks.run_everywhere, task), HOST_DDL
        )
        return [host for (host,) in tasks_.collect()]

    @contextmanager
    def _cancellable(self, what: str) -> Iterator[None]:
        with defer_interrupts(partial(self._spark.interruptTag, self._tag)):
            self._spark.addTag(self._tag)
            try:
                yield
            finally:
                self._spark.removeTag(self._tag)


def _read(rows: Iterable[Row]) -> list[ShardHandle]:
    return [ShardHandle.from_json(row.handle) for row in rows]


def _check_versions(spark: SparkSession) -> None:
    versions = pyspark.__version__, spark.version
    if any(int(version.partition(".")[0]) < 4 for version in versions):
        raise RuntimeError(
            f"fit over Spark Connect needs pyspark 4.0 or later, and a server of Spark 4.0 or "
            f"later; found pyspark {versions[0]} and Spark {versions[1]}. Use these, or fit in a "
            "classic session and save the model: load and transform work with Connect."
        )
