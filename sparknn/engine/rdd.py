"""Run rounds on Spark's RDDs: broadcast, ``mapPartitions``, ``treeAggregate``.

No barrier, no ports, no server: ordinary tasks that Spark may retry and run speculatively. Handles
of shards are cached on the executors that hold the shards, so Spark sends each task to its rows.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial, reduce
from typing import TypeVar, cast

import numpy as np
from pyspark import RDD, Broadcast, SparkContext, StorageLevel
from pyspark.sql import DataFrame

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerSum, merge_sums, weight_scale_for
from sparknn.core.training.runner import RoundResult
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine import tasks
from sparknn.engine.ingest import check, coarse_offset, shard_handles
from sparknn.engine.interface import DatasetInfo, DataSpec, FeatureStatistics
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.spill import ShardHandle
from sparknn.engine.statistics import combine
from sparknn.engine.worker_errors import WorkerEnvironmentError, translate_worker_errors

log = logging.getLogger("sparknn")
T = TypeVar("T")

# Jobs that try to reach all hosts with shards, before the rest is left to Spark's own clean-up.
_CLEANING_TRIES = 3


class RddEngine(AbstractContextManager["RddEngine"]):
    """Keep shards on executors, and run rounds as RDD jobs. Use it in a ``with`` block.

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
        self._spec = spec
        self._fit_id = uuid.uuid4().hex
        self._tag = f"sparknn-{self._fit_id}"
        self._statistics: FeatureStatistics | None = None
        self._handles: RDD[ShardHandle] | None = None
        self._folders: set[tuple[str, str]] = set()
        self.n_workers = spec.n_workers
        try:
            self.info: DatasetInfo = self._ingest(df)
            self.has_validation = self.info.n_validation > 0
            self._weight_scale = weight_scale_for(self.info.weight_sum)
            self._shape = (self.info.n_features, self.info.n_targets)
        except BaseException:
            self.close()
            raise

    def _ingest(self, df: DataFrame) -> DatasetInfo:
        started = time.perf_counter()
        log.info(
            "Reading rows and %s them to %s ...",
            "shuffling" if self._spec.shuffle else "distributing",
            _plural(self.n_workers, "worker"),
        )
        handles, n_executors = self._write_shards(df)
        info = check(handles, self._spec)
        if self._spec.center and (offset := coarse_offset(handles, info)) is not None:
            log.info(
                "%d of %s features in column '%s' vary too little for float32, or are constant: "
                "reading the rows again, less an offset.",
                np.count_nonzero(offset),
                f"{info.n_features:,}",
                self._spec.features,
            )
            self._discard_shards()
            # A lost shard must not be found among those of the first pass.
            self._fit_id = uuid.uuid4().hex
            handles, n_executors = self._write_shards(df, offset)
            info = replace(check(handles, self._spec), input_offset=offset)
        self.ingest_s = time.perf_counter() - started
        log.info(
            "Ingested %s training and %s validation rows (%s features) for %s in %.1f s%s.",
            f"{info.n_rows:,}",
            f"{info.n_validation:,}",
            f"{info.n_features:,}",
            _plural(self.n_workers, "worker"),
            self.ingest_s,
            f"; skipped {info.n_skipped:,} invalid rows" if info.n_skipped else "",
        )
        _warn_if_skewed(handles, n_executors)
        return info

    def _write_shards(
        self, df: DataFrame, offset: Float64Array | None = None
    ) -> tuple[list[ShardHandle], int]:
        """Write all shards; return their handles, by partition, and the number of executors."""
        with self._cancellable("sparknn: rows to shards"), translate_worker_errors():
            # Not cached: evaluating a partition writes its shard again.
            self._uncached_handles = shard_handles(df, self._spec, self._fit_id, offset)
            self._handles = self._uncached_handles.map(ShardHandle.from_json).persist(
                StorageLevel.MEMORY_AND_DISK
            )
            handles = sorted(self._handles.collect(), key=lambda handle: handle.partition)
            # Set here, as an interrupt is raised at the end of this block and clean-up needs them.
            self._folders = {handle.location for handle in handles}
            # Spark counts the driver, too; in local mode it is the only executor.
            n_executors = max(1, len(self._sc._jsc.sc().statusTracker().getExecutorInfos()) - 1)
        return handles, n_executors

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def n_slots(self) -> int:
        """Return how many tasks today's executors can run at a time.

        Spark's default parallelism is not that: users set it for their shuffles.
        """
        with defer_interrupts():
            context = self._sc._jsc.sc()
            profile = context.resourceProfileManager().defaultResourceProfile()
            return max(1, int(context.maxNumConcurrentTasks(profile)))

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Train every request on every worker; equal requests and rounds give equal bytes."""
        assert self._handles is not None
        started = time.perf_counter()
        with self._cancellable(f"sparknn: round {round_ + 1}, {len(requests)} networks"):
            broadcast = self._sc.broadcast(list(requests))
            try:
                sent = time.perf_counter()
                totals = self._train(broadcast, round_)
                ended = time.perf_counter()
            finally:
                broadcast.destroy()
        return RoundResult(totals, broadcast_s=sent - started, job_s=ended - sent)

    def _train(self, broadcast: Broadcast[list[RoundRequest]], round_: int) -> list[WorkerSum]:
        assert self._handles is not None
        task = partial(tasks.train, broadcast, round_, self._weight_scale, self._shape)
        # No zero value, which would be pickled into every task: a partition has one element.
        totals = self._handles.mapPartitions(task).treeAggregate(
            cast(list[WorkerSum], None), tasks.take_single, merge_sums, self._depth
        )
        missing = _missing_partitions(totals)
        if not missing:
            return totals
        shards = _plural(len(missing), "shard")
        log.warning("Round %d: %s lost; writing again.", round_ + 1, shards)
        found = self._rewrite_and_run(task, missing)
        return reduce(merge_sums, found, [_without(total, set(missing)) for total in totals])

    def statistics(self) -> FeatureStatistics:
        """Return statistics of features and targets; computed at the first call."""
        if self._statistics is None:
            moments = self._map_shards(
                "feature statistics",
                partial(tasks.shard_statistics, self._shape, self.info.sparse),
            )
            self._statistics = combine(moments, self.info.n_features)
        return self._statistics

    def sample(self, n_rows: int) -> Float32Array:
        """Return about ``n_rows`` training rows' features, shape (n, d); see ``Engine``."""
        share = min(1.0, n_rows / self.info.n_rows)
        task = partial(tasks.shard_sample, self._shape, share)
        return np.concatenate(self._map_shards("sample of the rows", task))

    def digest(self) -> str:
        """Return a hash of all rows that does not depend on their order."""
        # Which validation rows are drawn depends on the order; those marked by a column do not.
        salt = 0 if self._spec.validation_indicator is None else 1
        parts = self._map_shards(
            "digest of the rows", partial(tasks.shard_digest, self._shape, salt)
        )
        return f"{sum(parts) % (1 << 64):016x}"

    def _map_shards(self, what: str, task: Callable[[ShardHandle], T]) -> list[T]:
        """Return the results of ``task`` on every shard, by partition."""
        assert self._handles is not None
        with self._cancellable(f"sparknn: {what}"):
            map_shards = partial(tasks.map_shards, task)
            parts = self._handles.mapPartitions(map_shards).collect()
            missing = [partition for partition, result in parts if result is None]
            if missing:
                parts += self._rewrite_and_run(map_shards, missing)
        found = {partition: result for partition, result in parts if result is not None}
        return [found[partition] for partition in range(self.n_workers)]

    def _rewrite_and_run(
        self, task: Callable[[Iterable[ShardHandle]], Iterator[T]], missing: list[int]
    ) -> list[T]:
        """Write shards again, and run a task on each where it is written."""
        found = self._sc.runJob(self._uncached_handles, partial(tasks.rewrite, task), missing)
        self._folders |= {location for location, _ in found}
        return [result for _, result in found]

    @defer_interrupts()
    def close(self) -> None:
        """Remove the shards and the cached handles."""
        if self._sc._jsc is None:
            # The session was stopped, which removed the executors' scratch folders.
            return
        try:
            # A call of the JVM that was broken off may have left its job running.
            self._sc.cancelJobsWithTag(self._tag)
            self._discard_shards()
        except WorkerEnvironmentError as error:
            # Where Python cannot run, it has written nothing; the fit's own error says why.
            log.debug("No shards were removed: %s", error)
        except Exception as error:
            # Must not hide the fit's own error, or its result.
            log.warning(
                "Could not remove the shards; Spark does when its executors end (%s: %s).",
                type(error).__name__,
                str(error).partition("\n")[0],
            )
        self._folders = set()

    def _discard_shards(self) -> None:
        if self._handles is not None:
            self._handles.unpersist()
            self._handles = None
        with translate_worker_errors():
            self._remove_shards()

    def _remove_shards(self) -> None:
        with self._job_description("sparknn: removing shards"):
            left = self._folders
            for _ in range(_CLEANING_TRIES):
                n_tasks = max(self._sc.defaultParallelism, 1)
                task = partial(tasks.remove, self._fit_id, [folder for _, folder in left])
                done = self._sc.parallelize(range(n_tasks), n_tasks).mapPartitions(task).collect()
                hosts = set(done)
                left = {(host, folder) for host, folder in left if host not in hosts}
                if not left:
                    break
            else:
                log.info("Spark will remove the shards of %d executors when they end.", len(left))

    @contextmanager
    def _cancellable(self, what: str) -> Iterator[None]:
        """Name the jobs inside, and cancel them on an interrupt."""
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


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _missing_partitions(totals: list[WorkerSum]) -> list[int]:
    return sorted(r.partition for r in totals[0].reports if r.left_out == "missing")


def _without(total: WorkerSum, partitions: set[int]) -> WorkerSum:
    kept = tuple(r for r in total.reports if r.partition not in partitions)
    return replace(total, reports=kept)


def _warn_if_skewed(handles: list[ShardHandle], n_executors: int) -> None:
    """Warn if an executor has at least two shards more than another: it ends every round last."""
    counts = sorted(Counter(handle.executor for handle in handles).values(), reverse=True)
    # Executors that started too late have no shards.
    counts += [0] * (n_executors - len(counts))
    if counts[0] > counts[-1] + 1:
        log.warning(
            "Shards are distributed unevenly over executors (%s): each round takes as long as the "
            "fullest. Start all executors before fit.",
            ", ".join(map(str, counts)),
        )
