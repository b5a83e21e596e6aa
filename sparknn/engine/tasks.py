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

from sparknn.core.averaging import Report, Total
from sparknn.core.plan import Job
from sparknn.core.training import work
from sparknn.engine.digest import digest
from sparknn.engine.moments import Sums, measure
from sparknn.engine.shards import scratch_folder
from sparknn.engine.spill import Handle
from sparknn.engine.worker import settle

T = TypeVar("T")


def train(
    broadcast: Broadcast[list[Job]],
    round_: int,
    unit: float,
    shape: tuple[int, int],
    handles: Iterable[Handle],
) -> Iterator[list[Total]]:
    """Every job's total on a worker's shard of ``shape`` (features, targets)."""
    settle()
    for handle in handles:
        jobs = broadcast.value
        if here := handle.here():
            rows, validation = here.rows(*shape)
            yield work(jobs, rows, validation, round_, handle.partition, unit)
        else:
            yield [Total.of(None, Report(handle.partition, left_out="missing")) for _ in jobs]


def only(nothing_yet: list[Total], totals: list[Total]) -> list[Total]:
    """What ``treeAggregate`` does with a partition's only element."""
    return totals


def each(task: Callable[[Handle], T], handles: Iterable[Handle]) -> Iterator[tuple[int, T | None]]:
    """A worker's number, and what ``task`` makes of its shard; None if the shard is not there."""
    settle()
    for handle in handles:
        here = handle.here()
        yield handle.partition, None if here is None else task(here)


def shard_moments(shape: tuple[int, int], handle: Handle) -> Sums:
    """Of the training rows."""
    rows, _ = handle.rows(*shape)
    return measure(rows)


def shard_digest(shape: tuple[int, int], salt: int, handle: Handle) -> int:
    """Of all rows; ``salt`` is for the validation rows."""
    rows, validation = handle.rows(*shape)
    return digest(rows) + digest(validation, salt)


def rewrite(
    task: Callable[[Iterable[Handle]], Iterator[T]], texts: Iterable[str]
) -> Iterator[tuple[tuple[str, str], T]]:
    """Evaluate a twin's partition, which writes its shard; it stays, for the rounds to come."""
    for text in texts:
        handle = Handle.from_json(text)
        for result in task([handle]):
            yield handle.place, result


def remove(fit_id: str, folders: Sequence[str], partitions: Iterable[int]) -> Iterator[str]:
    """Remove a fit's shards from this machine; its name, for who asks what is done."""
    list(partitions)
    own = {scratch_folder(fit_id, n) for n in range(os.environ["SPARK_LOCAL_DIRS"].count(",") + 1)}
    for folder in own | {Path(name) for name in folders}:
        shutil.rmtree(folder, ignore_errors=True)
    yield socket.gethostname()
