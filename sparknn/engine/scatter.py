"""Ingest, first half: cut arrow batches into blocks of float32 rows, one for each worker.

Spark then shuffles blocks, not rows, and every worker gets a random sample of every partition.
Everything here is a function of (seed, source partition, order of its rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import TaskContext

from sparknn.core.data.batches import rng_for
from sparknn.core.types import FloatArray
from sparknn.engine.decode import BatchColumns, Features, IngestCounts, decode
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.shards import Block

# Blocks are cut to about this size, so that no row that Spark moves is large.
_BLOCK_BYTES = 4 << 20
# Blocks, at least, that a worker's rows of an arrow batch are cut into. A shard holds its blocks in
# random order, so that consecutive rows are a sample of the whole DataFrame, however it was sorted.
_PIECES = 16
# Stands where training has the round, so that ingest draws other numbers.
_SCATTER_STREAM = 2**32 - 2

# What a block holds: the counts of its source partition come last.
TRAIN, VALIDATION, COUNTS = 0, 1, 2

BLOCK_SCHEMA = pa.schema(
    [
        ("key", pa.int32()),
        ("role", pa.int32()),
        ("source", pa.int32()),
        ("sequence", pa.int64()),
        ("n_rows", pa.int32()),
        ("n_features", pa.int32()),
        *[(name, pa.binary()) for name in ("x", "y", "w", "columns", "counts")],
    ]
)
BLOCK_DDL = (
    "key int, role int, source int, sequence long, n_rows int, n_features int, "
    "x binary, y binary, w binary, columns binary, counts binary"
)


@dataclass(frozen=True)
class Scatter:
    """What the first half of ingest must know.

    Parameters
    ----------
    keys : tuple of int
        For each worker a number that Spark's hash partitioner sends to that worker's partition.
    columns : BatchColumns
    seed : int
    shuffle : bool
    validation_fraction : float
    """

    keys: tuple[int, ...]
    columns: BatchColumns
    seed: int
    shuffle: bool
    validation_fraction: float


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")


def scatter(task: Scatter, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut every batch into blocks; at the end, one row with the notes of this partition."""
    freeze_gc()
    context = TaskContext.get()
    assert context is not None
    source = context.partitionId()
    n_workers = len(task.keys)
    notes = IngestCounts()
    # Where dealing goes on: batches smaller than the number of workers still reach all of them.
    next_worker = int(rng_for(task.seed, _SCATTER_STREAM, source, 0).integers(n_workers))
    sequence = 0
    for number, batch in enumerate(batches, start=1):
        batch = _with_weight(task, batch, notes)
        if batch.num_rows == 0:
            continue
        rng = rng_for(task.seed, _SCATTER_STREAM, source, number)
        # Drawn for every row, so that what is invalid does not change the draw of the others.
        draw = rng.random(batch.num_rows)
        order = rng.permutation(batch.num_rows) if task.shuffle else np.arange(batch.num_rows)
        rows = decode(task.columns, batch, notes)
        if rows is None:
            continue
        features, y, w, indicator, valid = rows
        validation = indicator if task.columns.has_indicator else draw < task.validation_fraction
        for role, chosen in ((TRAIN, valid & ~validation), (VALIDATION, valid & validation)):
            index = order[chosen[order]]
            for worker, part in _deal(task, index, next_worker, source):
                for piece in _cut(features, part, _PIECES if task.shuffle else 1):
                    block = _block(features, y, w, piece)
                    place = int(rng.integers(1 << 31)) << 32 if task.shuffle else 0
                    yield _row(task.keys[worker], role, source, place | sequence, block)
                    sequence += 1
            next_worker = (next_worker + len(index)) % n_workers
    yield _row(task.keys[source % n_workers], COUNTS, source, 0, _note_block(notes))


def _with_weight(task: Scatter, batch: pa.RecordBatch, notes: IngestCounts) -> pa.RecordBatch:
    """Without the rows of weight 0, which are as good as not there, whatever else they hold."""
    if not task.columns.has_weight:
        return batch
    kept = batch.filter(pc.fill_null(pc.not_equal(batch.column("w"), 0.0), True))
    notes.n_seen += batch.num_rows - kept.num_rows
    return kept


def _deal(
    task: Scatter, index: NDArray[np.int64], first: int, source: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    n_workers = len(task.keys)
    if not task.shuffle:
        yield source % n_workers, index
        return
    for offset in range(min(n_workers, len(index))):
        yield (first + offset) % n_workers, index[offset::n_workers]


def _cut(
    features: Features, index: NDArray[np.int64], iter_chunks: int
) -> Iterator[NDArray[np.int64]]:
    if features.dense is not None:
        row_bytes = 4.0 * features.n_features
    else:
        row_bytes = 8.0 * len(features.values) / max(len(features.starts) - 1, 1)
    n_rows = max(1, min(-(-len(index) // iter_chunks), int(_BLOCK_BYTES / max(row_bytes, 1.0))))
    for start in range(0, len(index), n_rows):
        yield index[start : start + n_rows]


def _block(features: Features, y: FloatArray, w: FloatArray, index: NDArray[np.int64]) -> Block:
    x, columns, counts = (_bytes(part) for part in features.take(index))
    y_bytes, w_bytes = _bytes(y[index]), _bytes(w[index])
    return Block(len(index), features.n_features, x, y_bytes, w_bytes, columns, counts)


def _note_block(notes: IngestCounts) -> Block:
    empty = memoryview(b"")
    return Block(0, 0, memoryview(notes.to_json().encode()), empty, empty, empty, empty)


def _row(key: int, role: int, source: int, sequence: int, block: Block) -> pa.RecordBatch:
    numbers = [key, role, source, sequence, block.n_rows, block.n_features]
    arrays = [pa.array([n], field.type) for n, field in zip(numbers, BLOCK_SCHEMA, strict=False)]
    for name in ("x", "y", "w", "columns", "counts"):
        data = getattr(block, name)
        # Arrow wraps the bytes as they are: no copy.
        ends = pa.py_buffer(np.array([0, len(data)], dtype=np.int32))
        arrays.append(pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(data)]))
    return pa.RecordBatch.from_arrays(arrays, schema=BLOCK_SCHEMA)
