"""What runs in Spark's Python workers: training a round, reading a shard, removing it.

Nothing of pyspark.ml is imported here: with pandas behind it, it would double the half second that
a Python worker takes to start.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pyspark import Broadcast

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerReport, WorkerSum
from sparknn.core.training.worker_round import run_worker
from sparknn.engine.digest import digest
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.shards import scratch_folder
from sparknn.engine.spill import ShardHandle
from sparknn.engine.statistics import Sums, measure

T = TypeVar("T")


def train(
    broadcast: Broadcast[list[RoundRequest]],
    round_: int,
    weight_scale: float,
    shape: tuple[int, int],
    handles: Iterable[ShardHandle],
) -> Iterator[list[WorkerSum]]:
    """Every job's total on a worker's shard of ``shape`` (features, targets)."""
    freeze_gc()
    for handle in handles:
        requests = broadcast.value
        if here := handle.find_local():
            rows, validation = here.rows(*shape)
            yield run_worker(requests, rows, validation, round_, handle.partition, weight_scale)
        else:
            yield [
                WorkerSum.from_worker(None, WorkerReport(handle.partition, left_out="missing"))
                for _ in requests
            ]


def take_single(nothing_yet: list[WorkerSum], totals: list[WorkerSum]) -> list[WorkerSum]:
    """What ``treeAggregate`` does with a partition's only element."""
    return totals


def map_shards(
    task: Callable[[ShardHandle], T], handles: Iterable[ShardHandle]
) -> Iterator[tuple[int, T | None]]:
    """A worker's number, and what ``task`` makes of its shard; None if the shard is not there."""
    freeze_gc()
    for handle in handles:
        here = handle.find_local()
        yield handle.partition, None if here is None else task(here)


def shard_statistics(shape: tuple[int, int], handle: ShardHandle) -> Sums:
    """Of the training rows."""
    rows, _ = handle.rows(*shape)
    return measure(rows)


def shard_digest(shape: tuple[int, int], salt: int, handle: ShardHandle) -> int:
    """Of all rows; ``salt`` is for the validation rows."""
    rows, validation = handle.rows(*shape)
    return digest(rows) + digest(validation, salt)


def rewrite(
    task: Callable[[Iterable[ShardHandle]], Iterator[T]], texts: Iterable[str]
) -> Iterator[tuple[tuple[str, str], T]]:
    """Evaluate a twin's partition, which writes its shard; it stays, for the rounds to come."""
    for text in texts:
        handle = ShardHandle.from_json(text)
        for result in task([handle]):
            yield handle.location, result


def remove(fit_id: str, folders: Sequence[str], partitions: Iterable[int]) -> Iterator[str]:
    """Remove a fit's shards from this machine; its name, for who asks what is done."""
    list(partitions)
    own = {scratch_folder(fit_id, n) for n in range(os.environ["SPARK_LOCAL_DIRS"].count(",") + 1)}
    for folder in own | {Path(name) for name in folders}:
        shutil.rmtree(folder, ignore_errors=True)
    yield socket.gethostname()
