"""Ingest, first half: cut arrow batches into blocks of rows, each for one worker.

Spark then shuffles blocks, not rows, and every worker gets a random sample of every partition.
Everything here is a function of (seed, source partition, order of its rows).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import TaskContext

from sparknn.core.data.batches import rng_for
from sparknn.core.data.chunks import split_by_size
from sparknn.core.types import Float32Array, FloatArray
from sparknn.engine.decode import Features, IngestCounts, IngestTask, decode
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.shards import Bytes

# Blocks are cut to about this size, so that no row that Spark moves is large. Small blocks go to
# Spark together, in record batches of about this size: one by one, they take 0.3 ms each.
_BLOCK_BYTES = 4 << 20
# Blocks, at least, that a worker's rows of an arrow batch are cut into. A shard holds its blocks in
# random order, so that consecutive rows are a sample of the whole DataFrame, however it was sorted.
_BLOCKS_PER_WORKER = 16
# Takes the place of the round among the seeds, so that ingest and training draw other numbers.
_SCATTER_STREAM = 2**32 - 2

# Rows that are looked at before all of them are made bytes.
_PROBES = 8

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


class _Block(NamedTuple):
    """Rows of a batch, by index, and where they go."""

    key: int
    role: int
    sequence: int
    rows: NDArray[np.int64]


def scatter(task: IngestTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut every batch into blocks; yield them, and the counts of this partition at the end."""
    freeze_gc()
    context = TaskContext.get()
    assert context is not None
    source = context.partitionId()
    n_workers = len(task.keys)
    counts = IngestCounts()
    # Carried on from batch to batch, so that batches of few rows reach all workers, too.
    next_worker = int(rng_for(task.seed, _SCATTER_STREAM, source, 0).integers(n_workers))
    sequence = 0
    for number, batch in enumerate(batches, start=1):
        batch = _drop_weightless(task, batch, counts)
        if batch.num_rows == 0:
            continue
        rng = rng_for(task.seed, _SCATTER_STREAM, source, number)
        # Drawn for every row, so that invalid rows do not change the draw of the others.
        draw = rng.random(batch.num_rows)
        order = rng.permutation(batch.num_rows) if task.shuffle else np.arange(batch.num_rows)
        decoded = decode(task, batch, counts)
        if decoded is None:
            continue
        features, y, w, indicator, valid = decoded
        validation = indicator if task.has_indicator else draw < task.validation_fraction
        counts.note_draws(draw[valid])
        row_bytes = _row_bytes(features)
        blocks: list[_Block] = []
        for role, chosen in ((TRAIN, valid & ~validation), (VALIDATION, valid & validation)):
            index = order[chosen[order]]
            for worker, assigned in _assign(task, index, next_worker, source):
                for rows in _cut(assigned, _BLOCKS_PER_WORKER if task.shuffle else 1, row_bytes):
                    position = int(rng.integers(1 << 31)) << 32 if task.shuffle else 0
                    blocks.append(_Block(task.keys[worker], role, position | sequence, rows))
                    sequence += 1
            next_worker = (next_worker + len(index)) % n_workers
        if features.dense is not None:
            features.dense = narrow(features.dense)
        row_bytes += y[:1].nbytes + w[:1].nbytes
        sizes = [int(len(block.rows) * row_bytes) for block in blocks]
        for part in split_by_size(sizes, _BLOCK_BYTES):
            yield _to_arrow(source, blocks[part], features, y, w, counts)
    yield _counts_to_arrow(task.keys[source % n_workers], source, counts)


def _drop_weightless(
    task: IngestTask, batch: pa.RecordBatch, counts: IngestCounts
) -> pa.RecordBatch:
    """Remove rows of weight 0: they count as absent, whatever else they hold."""
    if not task.has_weight:
        return batch
    kept = batch.filter(pc.fill_null(pc.not_equal(batch.column("w"), 0.0), True))
    counts.n_seen += batch.num_rows - kept.num_rows
    return kept


def _assign(
    task: IngestTask, index: NDArray[np.int64], first: int, source: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield workers and their rows: in turn from worker ``first`` on, or all to one worker."""
    n_workers = len(task.keys)
    if not task.shuffle:
        yield source % n_workers, index
        return
    for offset in range(min(n_workers, len(index))):
        yield (first + offset) % n_workers, index[offset::n_workers]


def _cut(index: NDArray[np.int64], n_blocks: int, row_bytes: float) -> Iterator[NDArray[np.int64]]:
    n_rows = max(1, min(-(-len(index) // n_blocks), int(_BLOCK_BYTES / max(row_bytes, 1.0))))
    for start in range(0, len(index), n_rows):
        yield index[start : start + n_rows]


def _row_bytes(features: Features) -> float:
    """Return the size of a row's features; of sparse rows, the mean."""
    if features.dense is not None:
        return 4.0 * features.n_features
    return 8.0 * len(features.values) / max(len(features.starts) - 1, 1)


def narrow(X: Float32Array) -> NDArray[Any]:
    """Return the numbers as bytes if all are whole, from 0 to 255: pixels, counts, flags.

    A quarter of the bytes then passes through the JVM, which takes most of the time of an ingest.
    ``widen`` returns the same float32, to the bit.
    """
    small: NDArray[Any] = X
    # A few rows rule it out for most others.
    for part in (X[:_PROBES], X):
        with np.errstate(invalid="ignore"):
            small = part.astype(np.uint8)
        # By bits, as -0.0 equals 0.
        if not np.array_equal(small.astype(np.float32).view(np.int32), part.view(np.int32)):
            return X
    return small


def widen(x: Bytes, n_numbers: int) -> Bytes:
    """Return the bytes of ``n_numbers`` float32, of which ``narrow`` may have made bytes."""
    if len(x) != n_numbers or not n_numbers:
        return x
    return np.frombuffer(x, np.uint8).astype(np.float32).view(np.uint8).data


def _to_arrow(
    source: int,
    blocks: list[_Block],
    features: Features,
    y: FloatArray,
    w: FloatArray,
    counts: IngestCounts,
) -> pa.RecordBatch:
    """Gather the rows of some blocks into one record batch, and count their checksums."""
    keys, roles, sequences, rows = zip(*blocks, strict=True)
    index = np.concatenate(rows)
    n_rows = [len(block) for block in rows]
    x, columns, n_entries = features.take(index)
    # Rows before each block, and entries of sparse rows.
    row_ends = np.cumsum([0, *n_rows])
    if features.dense is None:
        entry_ends = np.cumsum(np.append(0, n_entries))[row_ends]
        x_ends, count_ends = entry_ends, row_ends
    else:
        entry_ends = count_ends = np.zeros_like(row_ends)
        x_ends = row_ends * features.n_features
    parts = {
        "x": _bytes(x, x_ends),
        "y": _bytes(y[index], row_ends * y[:1].size),
        "w": _bytes(w[index], row_ends),
        "columns": _bytes(columns, entry_ends),
        "counts": _bytes(n_entries, count_ends),
    }
    counts.sent += sum(map(checksum, roles, zip(*map(_pieces, parts.values()), strict=True)))
    block_columns = {
        "key": keys,
        "role": roles,
        "source": [source] * len(blocks),
        "sequence": sequences,
        "n_rows": n_rows,
        "n_features": [features.n_features] * len(blocks),
        **{name: _binary(*part) for name, part in parts.items()},
    }
    return pa.RecordBatch.from_pydict(block_columns, schema=BLOCK_SCHEMA)


def checksum(role: int, parts: Iterable[Any]) -> int:
    """Return a checksum of a block: its role, and the bytes of its parts."""
    return reduce(lambda found, part: zlib.crc32(part, found), parts, role)


def _bytes(values: NDArray[Any], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[int]]:
    """Return an array's bytes, and where to cut them to cut before some of its numbers."""
    values = np.ascontiguousarray(values)
    return values.reshape(-1).view(np.uint8), (ends * values.itemsize).tolist()


def _pieces(part: tuple[NDArray[np.uint8], list[int]]) -> Iterator[NDArray[np.uint8]]:
    values, ends = part
    return (values[start:stop] for start, stop in pairwise(ends))


def _binary(values: NDArray[np.uint8], ends: list[int]) -> pa.Array:
    buffers = [None, pa.py_buffer(np.array(ends, np.int32)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(ends) - 1, buffers)


def _counts_to_arrow(key: int, source: int, counts: IngestCounts) -> pa.RecordBatch:
    numbers = {"key": key, "role": COUNTS, "source": source, "x": counts.to_json().encode()}
    row = {field.name: b"" if field.type == pa.binary() else 0 for field in BLOCK_SCHEMA}
    return pa.RecordBatch.from_pylist([row | numbers], schema=BLOCK_SCHEMA)
