"""Run rounds on Spark's RDDs: broadcast, ``mapPartitions``, ``treeAggregate``.

No barrier, no ports, no server: ordinary tasks that Spark may retry and run speculatively. Handles
of shards are cached on the executors that hold the shards, so Spark sends each task to its rows.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, reduce
from typing import TypeVar, cast

from pyspark import RDD, Broadcast, SparkContext, StorageLevel
from pyspark.sql import DataFrame

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerSum, merge_sums
from sparknn.core.training.runner import RoundResult
from sparknn.core.types import Float64Array
from sparknn.engine import tasks
from sparknn.engine.ingest import shard_handles
from sparknn.engine.interface import DataSpec
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.spark_engine import REWRITES, SparkEngine, lost_too_often, plural
from sparknn.engine.spill import ShardHandle
from sparknn.engine.worker_errors import translate_worker_errors

log = logging.getLogger("sparknn")
T = TypeVar("T")


class RddEngine(SparkEngine):
    """Run rounds as RDD jobs.

    Parameters
    ----------
    df : DataFrame
    spec : DataSpec
    aggregation_depth : int
        Depth of ``treeAggregate``.
    """

    def __init__(self, df: DataFrame, spec: DataSpec, aggregation_depth: int = 2) -> None:
        self._sc: SparkContext = df.sparkSession.sparkContext
        self._depth = aggregation_depth
        # What a round may have, as far as it was checked.
        self._most_values = 0
        self._handles: RDD[ShardHandle] | None = None
        # The same, of shards that were lost or damaged and written again, perhaps elsewhere.
        self._rewritten: RDD[ShardHandle] | None = None
        super().__init__(df, spec)

    def _write_shards(self, df: DataFrame, offset: Float64Array | None) -> list[ShardHandle]:
        # Not cached: evaluating a partition writes its shard again.
        self._uncached_handles = shard_handles(df, self._spec, self._fit_id, offset)
        if self._spec.shard_dir:
            # Every executor can read them: one that is lost takes none along.
            handles = self._uncached_handles.map(ShardHandle.from_json).collect()
            small = [handle.without_counts() for handle in handles]
            self._handles = self._sc.parallelize(small, len(small))
        else:
            self._handles = self._cache_handles()
            handles = self._handles.collect()
        self._written = {handle.folder for handle in handles}
        return handles

    def _cache_handles(self) -> RDD[ShardHandle]:
        handles = self._uncached_handles.map(ShardHandle.from_json)
        return handles.persist(StorageLevel.MEMORY_AND_DISK)

    def _n_executors(self) -> int:
        # Spark counts the driver, too; in local mode it is the only executor.
        return max(1, len(self._sc._jsc.sc().statusTracker().getExecutorInfos()) - 1)

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Train every request on every worker; equal requests and rounds give equal bytes."""
        started = time.perf_counter()
        what = f"sparknn: round {round_ + 1}, {len(requests)} networks"
        with self._cancellable(what), translate_worker_errors():
            self._check_result_size(requests)
            broadcast = self._sc.broadcast(list(requests))
            try:
                sent = time.perf_counter()
                totals = self._train(broadcast, round_)
                ended = time.perf_counter()
            finally:
                broadcast.destroy()
        return RoundResult(totals, broadcast_s=sent - started, job_s=ended - sent)

    def _check_result_size(self, requests: Sequence[RoundRequest]) -> None:
        """Raise an error if Spark would refuse the sums of a round once they are computed."""
        n_values = sum(request.state.size for request in requests)
        if n_values <= self._most_values:
            return
        n_results = _n_results(self.n_workers, self._depth)
        # Sums of several workers are int64.
        needed = n_results * n_values * (4 if n_results == self.n_workers else 8)
        conf = self._sc._jsc.sc().conf()
        limit = conf.getSizeAsBytes("spark.driver.maxResultSize", "1g")
        if 0 < limit < needed:
            raise RuntimeError(
                f"The sums of a round take {needed >> 20:,} MiB at the driver: "
                f"{plural(n_results, 'result')} of {n_values:,} values. "
                f"spark.driver.maxResultSize is {limit >> 20:,} MiB. Set it to "
                f"{-(-needed >> 30) + 1}g, and spark.driver.memory to more, or train a smaller "
                "network."
            )
        self._most_values = n_values

    def _train(self, broadcast: Broadcast[list[RoundRequest]], round_: int) -> list[WorkerSum]:
        assert self._handles is not None
        train = partial(tasks.train, broadcast, round_, self._weight_scale, self._shape)
        task = partial(tasks.check_unchanged, self._checksums, train)
        # No zero value, which would be pickled into every task: a partition has one element.
        totals = self._handles.mapPartitions(task).treeAggregate(
            cast(list[WorkerSum], None), tasks.take_single, merge_sums, self._depth
        )
        missing = _missing_partitions(totals)
        if not missing:
            return totals
        found = self._rewrite_and_run(task, missing)
        return reduce(merge_sums, found, [_without(total, set(missing)) for total in totals])

    def _map_shards(self, task: Callable[[ShardHandle], T]) -> Iterator[tuple[int, T]]:
        assert self._handles is not None
        map_shards = partial(
            tasks.check_unchanged, self._checksums, partial(tasks.map_shards, task)
        )
        parts = self._handles.mapPartitions(map_shards).collect()
        missing = [partition for partition, result in parts if result is None]
        if missing:
            parts += self._rewrite_and_run(map_shards, missing)
        return ((partition, result) for partition, result in parts if result is not None)

    def _rewrite_and_run(
        self, task: Callable[[Iterable[ShardHandle]], Iterator[T]], missing: list[int]
    ) -> list[T]:
        """Write shards again, and run a task on each where it is written.

        Handles are cached there, so that later rounds find what this one has written.
        """
        results: list[T] = []
        for _ in range(REWRITES + 1):
            if self._rewritten is None:
                self._rewritten = self._cache_handles()
            found = self._sc.runJob(self._rewritten, partial(tasks.rewrite, task), missing)
            written = {handle.folder for handle, _ in found} - self._written
            if written:
                log.warning("%s lost or damaged: written again.", plural(len(written), "shard"))
            self._written |= written
            self._folders |= {handle.location for handle, _ in found}
            results += [result for _, found_there in found for result in found_there]
            missing = [handle.partition for handle, found_there in found if not found_there]
            if not missing:
                return results
            self._rewritten.unpersist()
            self._rewritten = None
        raise lost_too_often(missing)

    def _session_ended(self) -> bool:
        return self._sc._jsc is None

    def _release(self) -> None:
        # A call of the JVM that was broken off may have left its job running.
        self._sc.cancelJobsWithTag(self._tag)
        for handles in (self._handles, self._rewritten):
            if handles is not None:
                handles.unpersist()
        self._handles = self._rewritten = None

    def _run_everywhere(self, task: Callable[[Iterable[int]], Iterator[str]]) -> list[str]:
        n_tasks = max(self._sc.defaultParallelism, 1)
        with self._job_description("sparknn: removing shards"):
            return self._sc.parallelize(range(n_tasks), n_tasks).mapPartitions(task).collect()

    @contextmanager
    def _cancellable(self, what: str) -> Iterator[None]:
        cancel = partial(self._sc.cancelJobsWithTag, self._tag)
        with defer_interrupts(cancel), self._job_description(what):
            yield

    @contextmanager
    def _job_description(self, what: str) -> Iterator[None]:
        """Name and tag the jobs inside, and leave the job group to the user."""
        # Threads of pyspark's tuning share one set of properties from Spark 4 on: a tag set there
        # marks the jobs of other fits too, so that cancelling ours would cancel theirs.
        context = self._sc._jsc.sc()
        shared = context.getLocalProperties()
        context.setLocalProperties(shared.clone())
        try:
            self._sc.setLocalProperty("spark.job.description", what)
            self._sc.addJobTag(self._tag)
            yield
        finally:
            context.setLocalProperties(shared)


def _n_results(n_workers: int, depth: int) -> int:
    """Return how many results of pyspark's ``treeAggregate`` reach the driver."""
    scale = max(math.ceil(n_workers ** (1.0 / depth)), 2)
    n_results = float(n_workers)
    while n_results > scale + n_results / scale:
        n_results /= scale
    return int(n_results)


def _missing_partitions(totals: list[WorkerSum]) -> list[int]:
    return sorted(r.partition for r in totals[0].reports if r.left_out == "missing")


def _without(total: WorkerSum, partitions: set[int]) -> WorkerSum:
    kept = tuple(r for r in total.reports if r.partition not in partitions)
    return replace(total, reports=kept)
