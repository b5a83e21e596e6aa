"""Functions for ``mapInArrow`` that run in Spark's Python workers, for Spark Connect.

They call the same tasks as RDDs do. What a task returns travels as pickled bytes, in rows of at
most ``ROW_BYTES``, as a message of Spark Connect has a limit.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark import TaskContext

from sparknn.engine import tasks
from sparknn.engine.decode import IngestTask
from sparknn.engine.spill import ShardHandle, spill_batches
from sparknn.engine.worker_errors import ShardChangedError

ROW_BYTES = 4 << 20

# A part of a pickled result, and whether it is the last one.
RESULT_DDL = "last boolean, value binary"
_RESULT_SCHEMA = pa.schema([("last", pa.bool_()), ("value", pa.binary())])
# A part of a value that is sent to all tasks.
PIECE_DDL = "number int, piece binary"
_PIECE_SCHEMA = pa.schema([("number", pa.int32()), ("piece", pa.binary())])
# A handle, and whether a task that has not written its shard finds it.
LOCATED_DDL = "handle string, kept boolean"
_LOCATED_SCHEMA = pa.schema([("handle", pa.string()), ("kept", pa.bool_())])
HOST_DDL = "host string"


def spill_some(
    task: IngestTask, partitions: frozenset[int], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Write the shards of some partitions."""
    context = TaskContext.get()
    assert context is not None
    if context.partitionId() in partitions:
        yield from spill_batches(task, batches)


def locate_shards(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield handles, and whether this task finds their shards and has not written them itself."""
    context = TaskContext.get()
    assert context is not None
    written_here = f"-{context.taskAttemptId()}"
    for batch in batches:
        texts = batch.column("handle").to_pylist()
        kept = [
            not handle.folder.endswith(written_here) and handle.find_local() is not None
            for handle in map(ShardHandle.from_json, texts)
        ]
        yield pa.RecordBatch.from_pydict({"handle": texts, "kept": kept}, schema=_LOCATED_SCHEMA)


def run_on_rows(
    ingest: IngestTask,
    task: bytes,
    checksums: Mapping[int, int],
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Write the shards of some partitions, run a task on them, and remove them.

    Parameters
    ----------
    ingest : IngestTask
    task : bytes
        As in ``run_on_shards``.
    checksums : mapping of int to int
        Of the shards, by partition, as they were when the rows were first read.
    batches : iterator
        Of blocks.

    Raises
    ------
    ShardChangedError
        If the rows are others now.
    """
    for batch in spill_some(ingest, frozenset(checksums), batches):
        handle = ShardHandle.from_json(batch.column("handle")[0].as_py())
        try:
            if handle.checksum != checksums[handle.partition]:
                raise ShardChangedError(f"the rows of worker {handle.partition} have changed")
            yield from run_on_shards(task, frozenset(checksums), iter([batch]))
        finally:
            shutil.rmtree(handle.folder, ignore_errors=True)


def run_on_shards(
    task: bytes | None, partitions: frozenset[int], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Run a task on the shards of some partitions.

    Parameters
    ----------
    task : bytes, optional
        A pickled function of a handle. By default it is in the pieces that the batches hold.
    partitions : frozenset of int
    batches : iterator
        Of handles; with pieces, of every handle beside every piece.

    Yields
    ------
    RecordBatch
        In parts, by ``RESULT_DDL``: partitions and results, None where the shard is lost.
    """
    texts: set[str] = set()
    pieces: dict[int, bytes] = {}
    for batch in batches:
        texts.update(batch.column("handle").to_pylist())
        if task is None:
            numbers = batch.column("number").to_pylist()
            pieces.update(zip(numbers, batch.column("piece").to_pylist(), strict=True))
    handles = [ShardHandle.from_json(text) for text in sorted(texts)]
    handles = [handle for handle in handles if handle.partition in partitions]
    if handles:
        sent = task or b"".join(piece for _, piece in sorted(pieces.items()))
        pieces.clear()
        for found in tasks.map_shards(pickle.loads(sent), handles):
            yield from _cut(pickle.dumps(found, protocol=5))


def _cut(data: bytes) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(data), ROW_BYTES):
        last = start + ROW_BYTES >= len(data)
        part = data[start : start + ROW_BYTES]
        yield pa.RecordBatch.from_pydict({"last": [last], "value": [part]}, schema=_RESULT_SCHEMA)


def send_piece(
    first: int, data: bytes, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield a part of a value in rows that are numbered from ``first`` on."""
    n_rows = sum(batch.num_rows for batch in batches)
    starts = range(0, len(data) if n_rows else 0, ROW_BYTES)
    for number, start in enumerate(starts, first):
        row = {"number": [number], "piece": [data[start : start + ROW_BYTES]]}
        yield pa.RecordBatch.from_pydict(row, schema=_PIECE_SCHEMA)


def run_everywhere(
    task: Callable[[Iterable[int]], Iterator[str]], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Run a task that needs no rows, and yield the text that it returns."""
    partitions: list[Any] = [batch.num_rows for batch in batches]
    yield pa.RecordBatch.from_pydict({"host": list(task(partitions))})
