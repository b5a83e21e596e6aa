"""Functions that run in Spark's Python workers: train a round, read a shard, remove shards.

Nothing here imports pyspark.ml: it imports pandas, which would double the half second that a
Python worker takes to start.
"""

from __future__ import annotations

import math
import os
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
from sparknn.engine.shards import scratch_folder
from sparknn.engine.spill import ShardHandle
from sparknn.engine.statistics import Moments, measure, sample

if TYPE_CHECKING:
    # A client of Spark Connect may lack it.
    from pyspark import Broadcast

T = TypeVar("T")


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


def rewrite(
    task: Callable[[Iterable[ShardHandle]], Iterator[T]], texts: Iterable[str]
) -> Iterator[tuple[tuple[str, str], T]]:
    """Run a task where a partition of the uncached handles has just written its shard again.

    The shard stays there for the rounds that follow.
    """
    for text in texts:
        handle = ShardHandle.from_json(text)
        for result in task([handle]):
            yield handle.location, result


def remove(fit_id: str, folders: Sequence[str], partitions: Iterable[int]) -> Iterator[str]:
    """Remove a fit's shards from this machine, and yield the machine's name."""
    list(partitions)
    n_disks = os.environ["SPARK_LOCAL_DIRS"].count(",") + 1
    for folder in {scratch_folder(fit_id, n) for n in range(n_disks)} | set(map(Path, folders)):
        shutil.rmtree(folder, ignore_errors=True)
    yield socket.gethostname()
