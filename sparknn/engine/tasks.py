"""Functions that run in Spark's Python workers: train a round, read a shard, remove shards.

Nothing here imports pyspark.ml: it imports pandas, which would double the half second that a
Python worker takes to start.
"""

from __future__ import annotations

import math
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerReport, WorkerSum
from sparknn.core.training.worker_round import run_worker
from sparknn.core.types import Float32Array
from sparknn.engine.digest import digest
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.shards import scratch_dirs, scratch_folder
from sparknn.engine.spill import ShardHandle
from sparknn.engine.statistics import Moments, measure, sample
from sparknn.engine.worker_errors import ShardChangedError

if TYPE_CHECKING:
    # A client of Spark Connect may lack it.
    from pyspark import Broadcast

T = TypeVar("T")

# Spark's names of scratch folders, from the executor's own to those of other workers on its host.
_SIBLINGS = ("blockmgr-*", "executor-*/blockmgr-*", "spark-*/executor-*/blockmgr-*")


def train(
    broadcast: Broadcast[list[RoundRequest]],
    round_: int,
    weight_scale: float,
    shape: tuple[int, int],
    handles: Iterable[ShardHandle],
) -> Iterator[list[WorkerSum]]:
    """Train every request on this worker's shard; ``shape`` is (features, targets)."""
    freeze_gc()
    requests = broadcast.value
    task = partial(train_shard, requests, round_, weight_scale, shape)
    for partition, totals in map_shards(task, handles):
        lost = WorkerSum.from_worker(None, WorkerReport(partition, left_out="missing"))
        yield [lost] * len(requests) if totals is None else totals


def train_shard(
    requests: Sequence[RoundRequest],
    round_: int,
    weight_scale: float,
    shape: tuple[int, int],
    handle: ShardHandle,
) -> list[WorkerSum]:
    """Train every request on a shard."""
    rows, validation = handle.rows(*shape)
    return run_worker(requests, rows, validation, round_, handle.partition, weight_scale)


def take_single(zero: list[WorkerSum], totals: list[WorkerSum]) -> list[WorkerSum]:
    """Return a partition's only element: the ``seqOp`` of ``treeAggregate``."""
    return totals


def map_shards(
    task: Callable[[ShardHandle], T], handles: Iterable[ShardHandle]
) -> Iterator[tuple[int, T | None]]:
    """Yield a worker's partition and the result of ``task`` on its shard, or None if it is lost."""
    freeze_gc()
    for handle in handles:
        local = handle.find_local()
        yield handle.partition, None if local is None else task(local)


def shard_statistics(shape: tuple[int, int], sparse: bool, handle: ShardHandle) -> Moments:
    """Return the moments of a shard's training rows."""
    rows, _ = handle.rows(*shape)
    return measure(rows, sparse=sparse)


def shard_sample(shape: tuple[int, int], share: float, handle: ShardHandle) -> Float32Array:
    """Return a share of a shard's training rows, shape (n, d)."""
    rows, _ = handle.rows(*shape)
    return sample(rows, math.ceil(share * rows.n_rows))


def shard_digest(shape: tuple[int, int], salt: int, handle: ShardHandle) -> int:
    """Return the digest of all rows of a shard; ``salt`` is added for its validation rows."""
    rows, validation = handle.rows(*shape)
    return digest(rows) + digest(validation, salt)


def check_unchanged(
    checksums: Sequence[int],
    task: Callable[[Iterable[ShardHandle]], Iterator[T]],
    handles: Iterable[ShardHandle],
) -> Iterator[T]:
    """Run a task on handles of shards that hold what they held after ingest.

    Raises
    ------
    ShardChangedError
        If one was written again, and has another checksum.
    """
    for handle in handles:
        if handle.checksum != checksums[handle.partition]:
            raise ShardChangedError(f"the shard of worker {handle.partition} has changed")
        yield from task([handle])


def rewrite(
    task: Callable[[Iterable[ShardHandle]], Iterator[T]], handles: Iterable[ShardHandle]
) -> Iterator[tuple[ShardHandle, list[T]]]:
    """Run a task where shards have been written again; no results from one that is lost there."""
    for handle in handles:
        yield handle, [] if handle.find_local() is None else list(task([handle]))


def remove(fit_id: str, folders: Sequence[str], partitions: Iterable[int]) -> Iterator[str]:
    """Remove a fit's shards from this machine, and yield the machine's name."""
    list(partitions)
    found = set(map(Path, folders))
    for folder in {scratch_folder(fit_id, n) for n in range(len(scratch_dirs()))}:
        found.add(folder)
        # Executors of one host that were killed have theirs beside it, in a standalone cluster.
        for level, pattern in zip(folder.parents[1:], _SIBLINGS, strict=False):
            found.update(level.glob(f"{pattern}/{folder.name}"))
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    yield socket.gethostname()
