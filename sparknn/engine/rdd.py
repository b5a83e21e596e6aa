"""Rounds on Spark's RDDs: broadcast, ``mapPartitions``, ``treeAggregate``.

No barrier, no ports, no server: ordinary tasks that Spark may retry and speculate on. Handles of
shards are cached where the shards are, so Spark sends each task to its rows.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

from pyspark import RDD, Broadcast, SparkContext, StorageLevel
from pyspark.sql import DataFrame

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerSum, merge_sums, weight_scale_for
from sparknn.core.training.runner import RoundResult
from sparknn.engine import tasks
from sparknn.engine.ingest import check, shard_handles
from sparknn.engine.interface import DatasetInfo, DataSpec, FeatureStatistics
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.spill import ShardHandle
from sparknn.engine.statistics import combine
from sparknn.engine.worker_errors import WorkerEnvironmentError, translate_worker_errors

log = logging.getLogger("sparknn")
T = TypeVar("T")

# Times that clean-up tasks are sent out before what they have not reached is left to Spark.
_CLEANING_TRIES = 3


class RddEngine:
    """Shards on executors, rounds as RDD jobs. Use it in a ``with`` block.

    Parameters
    ----------
    df : DataFrame
    spec : DataSpec
    aggregation_depth : int
        Of ``treeAggregate``.

    Attributes
    ----------
    info : DatasetInfo
    ingest_s : float
        Seconds that reading, shuffling and writing the shards took.
    """

    def __init__(self, df: DataFrame, spec: DataSpec, aggregation_depth: int = 2) -> None:
        self._sc: SparkContext = df.sparkSession.sparkContext
        self._depth = aggregation_depth
        self._spec = spec
        self._fit_id = uuid.uuid4().hex
        self._tag = f"sparknn-{self._fit_id}"
        self._moments: FeatureStatistics | None = None
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
            "shuffling" if self._spec.shuffle else "dealing",
            _workers(self.n_workers),
        )
        with self._cancellable("sparknn: rows to shards"), translate_worker_errors():
            # The twin of the cached handles: evaluating it writes a shard again.
            self._uncached_handles = shard_handles(df, self._spec, self._fit_id)
            self._handles = self._uncached_handles.map(ShardHandle.from_json).persist(
                StorageLevel.MEMORY_AND_DISK
            )
            handles = sorted(self._handles.collect(), key=lambda handle: handle.partition)
            # Inside: an interrupt is raised at the end, and clean-up needs them.
            self._folders = {handle.location for handle in handles}
        info = check(handles, self._spec)
        self.ingest_s = time.perf_counter() - started
        log.info(
            "Took in %s training and %s validation rows of %s features for %s in %.1f s%s.",
            f"{info.n_rows:,}",
            f"{info.n_validation:,}",
            f"{info.n_features:,}",
            _workers(self.n_workers),
            self.ingest_s,
            f"; skipped {info.n_skipped:,} invalid rows" if info.n_skipped else "",
        )
        _warn_if_skewed(handles)
        return info

    def __enter__(self) -> RddEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def n_slots(self) -> int:
        """Tasks that the executors of this moment run at a time.

        Not Spark's default parallelism, which is whatever a user sets for shuffles.
        """
        with defer_interrupts():
            context = self._sc._jsc.sc()
            profile = context.resourceProfileManager().defaultResourceProfile()
            return max(1, int(context.maxNumConcurrentTasks(profile)))

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Run every job on every worker; the same jobs and round give the same bytes."""
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
        # No zero value: it would be pickled into every task. A partition has one element.
        totals = self._handles.mapPartitions(task).treeAggregate(
            cast(list[WorkerSum], None), tasks.take_single, merge_sums, self._depth
        )
        missing = _missing(totals)
        return self._train_missing(task, round_, totals, missing) if missing else totals

    def _train_missing(
        self,
        task: Callable[[Iterable[ShardHandle]], Iterator[list[WorkerSum]]],
        round_: int,
        totals: list[WorkerSum],
        missing: list[int],
    ) -> list[WorkerSum]:
        """For workers whose task found no shard: write it again and train, in one task."""
        log.warning(
            "Round %d: %d shards were not where their tasks ran; writing them again.",
            round_ + 1,
            len(missing),
        )
        found = self._rewritten(task, missing)
        return reduce(merge_sums, found, [_without(total, set(missing)) for total in totals])

    def statistics(self) -> FeatureStatistics:
        """Moments of the training rows' features and targets; computed at the first call."""
        if self._moments is None:
            sums = self._from_shards(
                "moments of the features", partial(tasks.shard_statistics, self._shape)
            )
            self._moments = combine(sums, self.info.n_features)
        return self._moments

    def digest(self) -> str:
        """A hash of all rows: the same for the same rows, in whatever order Spark returns them."""
        # Drawn validation rows are others in another order; those of a column are not.
        salt = 0 if self._spec.validation_indicator is None else 1
        parts = self._from_shards(
            "digest of the rows", partial(tasks.shard_digest, self._shape, salt)
        )
        return f"{sum(parts) % (1 << 64):016x}"

    def _from_shards(self, what: str, task: Callable[[ShardHandle], T]) -> list[T]:
        """What ``task`` makes of every worker's shard, by partition."""
        assert self._handles is not None
        with self._cancellable(f"sparknn: {what}"):
            each = partial(tasks.map_shards, task)
            parts = self._handles.mapPartitions(each).collect()
            missing = [partition for partition, result in parts if result is None]
            if missing:
                parts += self._rewritten(each, missing)
        found = {partition: result for partition, result in parts if result is not None}
        return [found[partition] for partition in range(self.n_workers)]

    def _rewritten(
        self, task: Callable[[Iterable[ShardHandle]], Iterator[T]], missing: list[int]
    ) -> list[T]:
        """Write shards again, and run a task on each of them where it then is."""
        found = self._sc.runJob(self._uncached_handles, partial(tasks.rewrite, task), missing)
        self._folders |= {place for place, _ in found}
        return [result for _, result in found]

    @defer_interrupts()
    def close(self) -> None:
        """Remove the shards and the cached handles."""
        if self._sc._jsc is None:
            # The session was stopped, and the executors' scratch folders went with it.
            return
        try:
            # Whoever broke off a call of the JVM's may have left its job running.
            self._sc.cancelJobsWithTag(self._tag)
            if self._handles is not None:
                self._handles.unpersist()
                self._handles = None
            with translate_worker_errors():
                self._remove_shards()
        except WorkerEnvironmentError as error:
            # Where Python cannot run, it has written nothing; why the fit failed says the rest.
            log.debug("No shards were removed: %s", error)
        except Exception as error:
            # Must not stand in the way of why the fit failed, or of its result.
            log.warning(
                "Shards could not be removed, and are left to Spark's own clean-up (%s: %s).",
                type(error).__name__,
                str(error).partition("\n")[0],
            )
        self._folders = set()

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
                log.info("Shards on %d executors are left to Spark's own clean-up.", len(left))

    @contextmanager
    def _cancellable(self, what: str) -> Iterator[None]:
        """Name the jobs inside, and see that an interrupt cancels them."""
        cancel = partial(self._sc.cancelJobsWithTag, self._tag)
        with defer_interrupts(cancel), self._job_description(what):
            yield

    @contextmanager
    def _job_description(self, what: str) -> Iterator[None]:
        """Name and tag the jobs inside. The job group is the user's; it is left alone."""
        # Threads of pyspark's tuning share one set of properties from Spark 4 on: a tag that is put
        # there marks the jobs of other fits too, and what cancels ours would cancel theirs.
        context = self._sc._jsc.sc()
        shared = context.getLocalProperties()
        context.setLocalProperties(shared.clone())
        try:
            self._sc.setLocalProperty("spark.job.description", what)
            self._sc.addJobTag(self._tag)
            yield
        finally:
            context.setLocalProperties(shared)


def _workers(n: int) -> str:
    return f"{n} worker{'s' * (n != 1)}"


def _missing(totals: list[WorkerSum]) -> list[int]:
    return sorted(r.partition for r in totals[0].reports if r.left_out == "missing")


def _without(total: WorkerSum, partitions: set[int]) -> WorkerSum:
    kept = tuple(r for r in total.reports if r.partition not in partitions)
    return WorkerSum(total.values, kept)


def _warn_if_skewed(handles: list[ShardHandle]) -> None:
    """Say so when one executor got more shards than another: it is the last one in every round."""
    counts = Counter(str(Path(handle.folder).parent) for handle in handles)
    if counts and max(counts.values()) > min(counts.values()) + 1:
        log.warning(
            "Shards are spread unevenly: %s a scratch folder. Executors that start late get none; "
            "rounds take as long as the fullest.",
            sorted(counts.values(), reverse=True),
        )
