"""What both engines on Spark share: how shards are ingested, read and removed.

An engine writes shards on executors, returns handles to them, and sends tasks to them; ``rdd`` does
so by RDDs, ``connect`` by DataFrames alone.
"""

from __future__ import annotations

import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from pyspark.sql import DataFrame

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.core.training.runner import RoundResult
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine import shared_folder, tasks
from sparknn.engine.ingest import check, coarse_offset, repaired_fraction
from sparknn.engine.interface import DatasetInfo, DataSpec, FeatureStatistics
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.shards import scratch_folder
from sparknn.engine.spill import ShardHandle
from sparknn.engine.sql import default_parallelism
from sparknn.engine.statistics import combine
from sparknn.engine.worker_errors import WorkerEnvironmentError, translate_worker_errors

log = logging.getLogger("sparknn")
T = TypeVar("T")

# How often shards that are lost are written again before a round fails.
REWRITES = 3
# Jobs that try to reach all hosts with shards, before the rest is left to Spark's own clean-up.
_CLEANING_TRIES = 3


class SparkEngine(AbstractContextManager["SparkEngine"], ABC):
    """Keep shards on executors, and run rounds there. Use it in a ``with`` block.

    Parameters
    ----------
    df : DataFrame
    spec : DataSpec
    """

    def __init__(self, df: DataFrame, spec: DataSpec) -> None:
        self._spark, self._spec = df.sparkSession, spec
        self._fit_id = uuid.uuid4().hex
        self._tag = f"sparknn-{self._fit_id}"
        self._statistics: FeatureStatistics | None = None
        self._samples: dict[int, Float32Array] = {}
        # Whether every round reads the rows, as tasks do not find shards again.
        self.rereads = False
        self._folders: set[tuple[str, str]] = set()
        # Of each worker's shard. One that is written again must have the same.
        self._checksums: list[int] = []
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
            plural(self.n_workers, "worker"),
        )
        handles, n_executors = self._write_all(df)
        if fraction := repaired_fraction(handles, self._spec):
            self._spec = replace(self._spec, validation_fraction=fraction)
            handles, n_executors = self._write_again(df)
        info = check(handles, self._spec)
        offset = coarse_offset(handles, info) if self._spec.center else None
        n_workers = self._enough_workers(info.n_rows)
        if offset is not None:
            log.info(
                "%d of %s features in column '%s' vary too little for float32, or are constant: "
                "reading the rows again, less an offset.",
                np.count_nonzero(offset),
                f"{info.n_features:,}",
                self._spec.features,
            )
        if n_workers < self.n_workers:
            log.info(
                "%s training rows are few for %d workers: reading them again for %d. Set "
                "numWorkers to choose.",
                f"{info.n_rows:,}",
                self.n_workers,
                n_workers,
            )
        if offset is not None or n_workers < self.n_workers:
            self.n_workers = n_workers
            self._spec = replace(self._spec, n_workers=n_workers)
            handles, n_executors = self._write_again(df, offset)
            info = replace(check(handles, self._spec), input_offset=offset)
        self.ingest_s = time.perf_counter() - started
        log.info(
            "Ingested %s training and %s validation rows (%s features) for %s in %.1f s%s.",
            f"{info.n_rows:,}",
            f"{info.n_validation:,}",
            f"{info.n_features:,}",
            plural(self.n_workers, "worker"),
            self.ingest_s,
            f"; skipped {info.n_skipped:,} invalid rows" if info.n_skipped else "",
        )
        if not self._spec.shard_dir:
            _warn_if_skewed(handles, n_executors)
        return info

    def _enough_workers(self, n_rows: int) -> int:
        """Return how many workers the rows are worth."""
        least = self._spec.least_rows
        worth = max(2, n_rows // least) if least else self.n_workers
        return min(self.n_workers, worth)

    def _write_all(
        self, df: DataFrame, offset: Float64Array | None = None
    ) -> tuple[list[ShardHandle], int]:
        """Write all shards; return their handles, by partition, and the number of executors."""
        self._checksums = []
        with self._cancellable("sparknn: rows to shards"), translate_worker_errors():
            if self._spec.shard_dir:
                folder = str(scratch_folder(self._fit_id, 0, self._spec.shard_dir))
                self._folders = {("", folder)}
                shared_folder.make(self._run_everywhere, folder)
            handles = sorted(self._write_shards(df, offset), key=lambda handle: handle.partition)
            # Set here, as an interrupt is raised at the end of this block and clean-up needs them.
            self._folders = {handle.location for handle in handles}
            self._checksums = [handle.checksum for handle in handles]
            return handles, self._n_executors()

    def _write_again(
        self, df: DataFrame, offset: Float64Array | None = None
    ) -> tuple[list[ShardHandle], int]:
        """Write all shards as ``_write_all`` does, in place of those that are there."""
        self._discard_shards()
        # A lost shard must not be found among those of the first pass.
        self._fit_id = uuid.uuid4().hex
        return self._write_all(df, offset)

    def __exit__(self, *error: object) -> None:
        self.close()

    @cached_property
    def n_slots(self) -> int:
        """How many tasks run at a time: Spark's default parallelism, all slots unless it is set."""
        with defer_interrupts():
            return default_parallelism(self._spark)

    @abstractmethod
    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Train every request on every worker; equal requests and rounds give equal bytes."""

    def statistics(self) -> FeatureStatistics:
        """Return statistics of features and targets; computed at the first call."""
        if self._statistics is None:
            task = partial(tasks.shard_statistics, self._shape, self.info.sparse)
            moments = self._on_every_shard("feature statistics", task)
            self._statistics = combine(moments, self.info.n_features)
        return self._statistics

    def sample(self, n_rows: int) -> Float32Array:
        """Return about ``n_rows`` training rows' features, shape (n, d); see ``Engine``."""
        if n_rows not in self._samples:
            share = min(1.0, n_rows / self.info.n_rows)
            task = partial(tasks.shard_sample, self._shape, share)
            parts = self._on_every_shard("sample of the rows", task)
            self._samples[n_rows] = np.concatenate(parts)
        return self._samples[n_rows]

    def digest(self) -> str:
        """Return a hash of all rows; without ``shuffle``, also of which worker has which."""
        # Which validation rows are drawn depends on the order; those marked by a column do not.
        salt = 0 if self._spec.validation_indicator is None else 1
        task = partial(tasks.shard_digest, self._shape, salt)
        sums = self._on_every_shard("digest of the rows", task)
        step = 0 if self._spec.shuffle else 2
        total = sum((1 + step * partition) * each for partition, each in enumerate(sums))
        return f"{total % (1 << 64):016x}"

    def _on_every_shard(self, what: str, task: Callable[[ShardHandle], T]) -> list[T]:
        """Return the results of ``task`` on every shard, by partition."""
        with self._cancellable(f"sparknn: {what}"), translate_worker_errors():
            found = dict(self._map_shards(task))
        return [found[partition] for partition in range(self.n_workers)]

    @defer_interrupts()
    def close(self) -> None:
        """Remove the shards and the cached handles."""
        by_hand = " and ".join(folder for host, folder in self._folders if not host)
        if self._session_ended():
            # Which removed the executors' scratch folders.
            if by_hand:
                log.warning("The session has ended, and shards are left: remove %s.", by_hand)
            return
        try:
            self._discard_shards()
        except WorkerEnvironmentError as error:
            # Where Python cannot run, it has written nothing; the fit's own error says why.
            log.debug("No shards were removed: %s", error)
        except Exception as error:
            # Must not hide the fit's own error, or its result.
            log.warning(
                "Could not remove the shards; %s (%s: %s).",
                f"remove {by_hand}" if by_hand else "Spark does when its executors end",
                type(error).__name__,
                str(error).partition("\n")[0],
            )
        self._folders = set()

    def _discard_shards(self) -> None:
        self._release()
        with translate_worker_errors():
            self._remove_shards()

    def _remove_shards(self) -> None:
        left = self._folders
        for _ in range(_CLEANING_TRIES):
            folders = [folder for _, folder in left]
            shared = self._spec.shard_dir
            remove = shared_folder.remove if shared else partial(tasks.remove, self._fit_id)
            hosts = set(self._run_everywhere(partial(remove, folders)))
            left = {(host, folder) for host, folder in left if host not in hosts}
            if not left:
                return
        if shared:
            raise OSError("some of them cannot be removed")
        log.info("Spark will remove the shards of %d executors when they end.", len(left))

    @abstractmethod
    def _write_shards(self, df: DataFrame, offset: Float64Array | None) -> list[ShardHandle]:
        """Write all shards, and return handles in any order; later rounds go to where they are.

        ``offset``, shape (d,), is subtracted from the features.
        """

    @abstractmethod
    def _n_executors(self) -> int:
        """Return the number of executors, with shards and without; 0 if it is not known."""

    @abstractmethod
    def _map_shards(self, task: Callable[[ShardHandle], T]) -> Iterable[tuple[int, T]]:
        """Return partitions, in any order, and the results of ``task`` on their shards."""

    @abstractmethod
    def _run_everywhere(self, task: Callable[[Iterable[int]], Iterator[str]]) -> list[str]:
        """Return the results of a task that runs on every executor, as far as Spark has it so."""

    @abstractmethod
    def _cancellable(self, what: str) -> AbstractContextManager[None]:
        """Name the jobs inside, and cancel them on an interrupt."""

    @abstractmethod
    def _release(self) -> None:
        """Cancel what still runs, and unpersist what is cached."""

    @abstractmethod
    def _session_ended(self) -> bool:
        """Return whether the session was stopped."""


def lost_too_often(workers: Iterable[int]) -> RuntimeError:
    """Return the error of shards that are lost whenever they are written again."""
    return RuntimeError(
        f"The shards of workers {sorted(workers)} were lost {REWRITES + 1} times. Are executors "
        "removed, or their disks cleaned, while the fit runs? Set shardDir to a directory that all "
        "executors share."
    )


def plural(n: int, noun: str) -> str:
    """Return a number and a noun."""
    return f"{n} {noun}{'s' * (n != 1)}"


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
