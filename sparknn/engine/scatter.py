"""Ingest, first half: cut arrow batches into blocks of float32 rows, one for each worker.

Spark then shuffles blocks, not rows, and every worker gets a random sample of every partition.
Everything here is a function of (seed, source partition, order of its rows).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import TaskContext

from sparknn.core.batches import random_stream
from sparknn.core.types import FloatArray
from sparknn.engine.shards import Block

# Blocks are cut to about this size, so that no row that Spark moves is large.
_BLOCK_BYTES = 4 << 20
# Blocks, at least, that a worker's rows of an arrow batch are cut into. A shard holds its blocks in
# random order, so that consecutive rows are a sample of the whole DataFrame, however it was sorted.
_PIECES = 16
# Stands where training has the round, so that ingest draws other numbers.
_SCATTER_STREAM = 2**32 - 2

TRAIN, VALIDATION, NOTES = 0, 1, 2

BLOCK_SCHEMA = pa.schema(
    [
        ("key", pa.int32()),
        ("role", pa.int32()),
        ("source", pa.int32()),
        ("sequence", pa.int64()),
        ("n_rows", pa.int32()),
        *[(name, pa.binary()) for name in ("x", "y", "w", "columns", "counts")],
    ]
)
BLOCK_DDL = (
    "key int, role int, source int, sequence long, n_rows int, "
    "x binary, y binary, w binary, columns binary, counts binary"
)


@dataclass(frozen=True)
class Scatter:
    """What the first half of ingest must know.

    Parameters
    ----------
    keys : tuple of int
        For each worker a number that Spark's hash partitioner sends to that worker's partition.
    seed : int
    classifies, shuffle, skip_invalid, vectors, sparse, has_weight, has_indicator : bool
        ``vectors``: features are unwrapped vectors, not arrays; ``sparse``: shards hold entries.
    validation_fraction : float
    """

    keys: tuple[int, ...]
    seed: int
    classifies: bool
    shuffle: bool
    skip_invalid: bool
    vectors: bool
    sparse: bool
    has_weight: bool
    has_indicator: bool
    validation_fraction: float


@dataclass
class Features:
    """The features of an arrow batch: dense, shape (n, d), or the entries of sparse rows."""

    n_features: int
    dense: NDArray[np.float32] | None
    values: NDArray[np.float32]
    columns: NDArray[np.int32]
    starts: NDArray[np.int64]

    def block(self, index: NDArray[np.int64]) -> tuple[memoryview, memoryview, memoryview]:
        """Bytes of ``x``, ``columns`` and ``counts`` of the rows ``index``."""
        if self.dense is not None:
            return _bytes(self.dense[index]), memoryview(b""), memoryview(b"")
        counts = self.starts[index + 1] - self.starts[index]
        ends = np.cumsum(counts)
        entries = np.arange(ends[-1] if len(ends) else 0)
        entries += np.repeat(self.starts[index] - (ends - counts), counts)
        return _bytes(self.values[entries]), _bytes(self.columns[entries]), _bytes(counts)


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")


class Notes:
    """What a source partition has to tell the driver besides its rows: counts, by reason."""

    def __init__(self) -> None:
        self.bad: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()
        self.n_seen = 0
        self.n_skipped = 0

    def to_json(self) -> str:
        sizes = {str(size): count for size, count in self.sizes.items()}
        return json.dumps(
            {"bad": self.bad, "sizes": sizes, "seen": self.n_seen, "skipped": self.n_skipped}
        )


def scatter(task: Scatter, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut every batch into blocks; at the end, one row with the notes of this partition."""
    context = TaskContext.get()
    assert context is not None
    source = context.partitionId()
    n_workers = len(task.keys)
    notes = Notes()
    # Where dealing goes on: batches smaller than the number of workers still reach all of them.
    next_worker = int(random_stream(task.seed, _SCATTER_STREAM, source, 0).integers(n_workers))
    sequence = 0
    for number, batch in enumerate(batches, start=1):
        batch = _with_weight(task, batch, notes)
        if batch.num_rows == 0:
            continue
        rng = random_stream(task.seed, _SCATTER_STREAM, source, number)
        # Drawn for every row, so that what is invalid does not change the draw of the others.
        draw = rng.random(batch.num_rows)
        order = rng.permutation(batch.num_rows) if task.shuffle else np.arange(batch.num_rows)
        rows = _decode(task, batch, notes)
        if rows is None:
            continue
        features, y, w, indicator, valid = rows
        validation = indicator if task.has_indicator else draw < task.validation_fraction
        for role, chosen in ((TRAIN, valid & ~validation), (VALIDATION, valid & validation)):
            index = order[chosen[order]]
            for worker, part in _deal(task, index, next_worker, source):
                for piece in _cut(features, part, _PIECES if task.shuffle else 1):
                    block = _block(features, y, w, piece)
                    place = int(rng.integers(1 << 31)) << 32 if task.shuffle else 0
                    yield _row(task.keys[worker], role, source, place | sequence, block)
                    sequence += 1
            next_worker = (next_worker + len(index)) % n_workers
    yield _row(task.keys[source % n_workers], NOTES, source, 0, _note_block(notes))


def _with_weight(task: Scatter, batch: pa.RecordBatch, notes: Notes) -> pa.RecordBatch:
    """Without the rows of weight 0, which are as good as not there, whatever else they hold."""
    if not task.has_weight:
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


def _cut(features: Features, index: NDArray[np.int64], pieces: int) -> Iterator[NDArray[np.int64]]:
    if features.dense is not None:
        row_bytes = 4.0 * features.n_features
    else:
        row_bytes = 8.0 * len(features.values) / max(len(features.starts) - 1, 1)
    n_rows = max(1, min(-(-len(index) // pieces), int(_BLOCK_BYTES / max(row_bytes, 1.0))))
    for start in range(0, len(index), n_rows):
        yield index[start : start + n_rows]


def _block(features: Features, y: FloatArray, w: FloatArray, index: NDArray[np.int64]) -> Block:
    x, columns, counts = features.block(index)
    return Block(len(index), x, _bytes(y[index]), _bytes(w[index]), columns, counts)


def _note_block(notes: Notes) -> Block:
    empty = memoryview(b"")
    return Block(0, memoryview(notes.to_json().encode()), empty, empty, empty, empty)


def _row(key: int, role: int, source: int, sequence: int, block: Block) -> pa.RecordBatch:
    numbers = [key, role, source, sequence, block.n_rows]
    arrays = [pa.array([n], field.type) for n, field in zip(numbers, BLOCK_SCHEMA, strict=False)]
    for name in ("x", "y", "w", "columns", "counts"):
        data = getattr(block, name)
        # Arrow wraps the bytes as they are: no copy.
        ends = pa.py_buffer(np.array([0, len(data)], dtype=np.int32))
        arrays.append(pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(data)]))
    return pa.RecordBatch.from_arrays(arrays, schema=BLOCK_SCHEMA)


Decoded = tuple[Features, FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_]]


def _decode(task: Scatter, batch: pa.RecordBatch, notes: Notes) -> Decoded | None:
    """Arrow columns to numpy, and which rows are fit to train on; None if none can be used.

    Every column is checked, so that one pass finds all mistakes.
    """
    n = batch.num_rows
    notes.n_seen += n
    present = _present(batch.column("x"))
    if task.vectors:
        present &= _present(batch.column("type"))
    notes.bad["features: null"] += int(n - present.sum())
    finite, features = _features(task, batch, present, notes)
    notes.bad["features: NaN, infinite, beyond float32 or null inside"] += int(
        (present & ~finite).sum()
    )
    invalid = ~present | ~finite

    y, known, finite = _numbers(batch.column("y"), notes)
    notes.bad["label: null"] += int(n - known.sum())
    notes.bad["label: NaN or infinite"] += int((known & ~finite).sum())
    invalid |= ~known | ~finite
    if task.classifies:
        usable = known & finite
        notes.bad["label: negative"] += int((usable & (y < 0)).sum())
        notes.bad["label: not a whole number"] += int((usable & (y != np.floor(y))).sum())

    w = np.ones(n)
    if task.has_weight:
        w, known, finite = _numbers(batch.column("w"), notes)
        notes.bad["weight: null"] += int(n - known.sum())
        notes.bad["weight: NaN or infinite"] += int((known & ~finite).sum())
        notes.bad["weight: negative"] += int((known & finite & (w < 0)).sum())
        invalid |= ~known | ~finite

    indicator = np.zeros(n, dtype=bool)
    if task.has_indicator:
        flags = batch.column("validation")
        known = _present(flags)
        notes.bad["validation indicator: null"] += int(n - known.sum())
        indicator = flags.fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
        invalid |= ~known

    notes.n_skipped += int(invalid.sum())
    return None if features is None else (features, y, w, indicator, ~invalid & (w > 0))


def _present(column: pa.Array) -> NDArray[np.bool_]:
    present: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    return present


def _numbers(
    column: pa.Array, notes: Notes
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Values, shape (n,) or, from arrays, (n, k); which rows are there; which are finite."""
    known = _present(column)
    if not pa.types.is_list(column.type):
        values = column.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
        return values, known, np.isfinite(values)
    lengths = np.diff(column.offsets.to_numpy())
    widths = np.unique(lengths[known])
    for width in widths.tolist():
        notes.bad[f"label size {width}"] += int((known & (lengths == width)).sum())
    width = int(widths.max()) if len(widths) else 0
    rows = np.full((len(column), width), np.nan)
    whole = known & (lengths == width)
    flat = column.flatten()
    entries = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    keep = np.repeat(whole, np.where(known, lengths, 0))
    rows[whole] = entries[keep].reshape(int(whole.sum()), width)
    # Rows of another size are counted as such above, and are an error.
    return rows, known, np.isfinite(rows).all(axis=1) | ~whole


def _features(
    task: Scatter, batch: pa.RecordBatch, present: NDArray[np.bool_], notes: Notes
) -> tuple[NDArray[np.bool_], Features | None]:
    """Which rows are finite, and the features: None if their sizes differ or there are none."""
    n = batch.num_rows
    lists = batch.column("x")
    lengths = np.where(present, np.diff(lists.offsets.to_numpy()), 0)
    # A null list may still own entries; flatten() leaves those out, which the lengths here match.
    flat = lists.flatten()
    holes = flat.null_count > 0
    values = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    good = np.isfinite(values)
    if holes:
        good &= flat.is_valid().to_numpy(zero_copy_only=False)
    finite = np.ones(n, dtype=bool)
    if not good.all():
        finite[np.repeat(np.arange(n), lengths)[~good]] = False

    sizes = lengths
    is_sparse = np.zeros(n, dtype=bool)
    if task.vectors:
        is_sparse = present & (batch.column("type").fill_null(1).to_numpy() == 0)
        sizes = np.where(is_sparse, batch.column("size").fill_null(0).to_numpy(), lengths)
    for size, count in zip(*np.unique(sizes[present], return_counts=True), strict=True):
        notes.sizes[int(size)] += int(count)
    widths = np.unique(sizes[present])
    if len(widths) != 1:
        return finite, None
    d = int(widths[0])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    no_columns = np.empty(0, dtype=np.int32)
    if not task.sparse and not is_sparse.any():
        if present.all():
            dense = values.reshape(n, d)
        else:
            dense = np.zeros((n, d), dtype=np.float32)
            dense[present] = values.reshape(int(present.sum()), d)
        return finite, Features(d, dense, values, no_columns, starts)

    columns = np.empty(len(values), dtype=np.int32)
    entry_row = np.repeat(np.arange(n), lengths)
    of_sparse = is_sparse[entry_row]
    if is_sparse.any():
        indices = batch.column("indices")
        columns[of_sparse] = indices.flatten().to_numpy(zero_copy_only=False)
    columns[~of_sparse] = (np.arange(len(values)) - starts[entry_row])[~of_sparse]
    if not task.sparse:
        dense = np.zeros((n, d), dtype=np.float32)
        dense[entry_row, columns] = values
        return finite, Features(d, dense, values, columns, starts)
    keep = values != 0
    counts = np.bincount(entry_row[keep], minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return finite, Features(d, None, values[keep], columns[keep], starts)
