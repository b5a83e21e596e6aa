"""Ingest: the columns of an arrow batch as numpy, and what is wrong with their rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparknn.core.types import FloatArray

# Density of a batch of vectors below which its rows are kept as entries. More of them are better
# dense, however they came: that trains faster (of MNIST's pixels one in five is not 0, say).
_SPARSE_DENSITY = 0.1

# So that no sum of weights, over rows and passes, is past the end of float64.
_MOST_WEIGHT = 1e290


@dataclass(frozen=True)
class BatchColumns:
    """Which columns a batch has, and what they mean.

    Parameters
    ----------
    classifies : bool
        Whether labels must be whole numbers from 0.
    vectors : bool
        Whether features are unwrapped vectors, not arrays.
    has_weight, has_indicator : bool
    """

    classifies: bool
    vectors: bool
    has_weight: bool
    has_indicator: bool


@dataclass
class Features:
    """The features of an arrow batch: dense, shape (n, d), or the entries of sparse rows."""

    n_features: int
    dense: NDArray[np.float32] | None
    values: NDArray[np.float32]
    columns: NDArray[np.int32]
    starts: NDArray[np.int64]

    def take(
        self, index: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
        """``x``, ``columns`` and ``counts`` of the rows ``index``, as a shard holds them."""
        if self.dense is not None:
            return self.dense[index], np.empty(0, np.int32), np.empty(0, np.int64)
        counts = self.starts[index + 1] - self.starts[index]
        ends = np.cumsum(counts)
        entries = np.arange(ends[-1] if len(ends) else 0)
        entries += np.repeat(self.starts[index] - (ends - counts), counts)
        return self.values[entries], self.columns[entries], counts


class IngestCounts:
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


Decoded = tuple[Features, FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_]]


def decode(spec: BatchColumns, batch: pa.RecordBatch, notes: IngestCounts) -> Decoded | None:
    """Arrow columns to numpy, and which rows are fit to train on; None if none can be used.

    Every column is checked, so that one pass finds all mistakes.
    """
    n = batch.num_rows
    notes.n_seen += n
    present = _present(batch.column("x"))
    if spec.vectors:
        present &= _present(batch.column("type"))
    notes.bad["features: null"] += int(n - present.sum())
    finite, features = _features(spec, batch, present, notes)
    notes.bad["features: NaN, infinite, beyond float32 or null inside"] += int(
        (present & ~finite).sum()
    )
    invalid = ~present | ~finite

    y, known, finite = _numbers(batch.column("y"), notes)
    notes.bad["label: null"] += int(n - known.sum())
    notes.bad["label: NaN or infinite"] += int((known & ~finite).sum())
    invalid |= ~known | ~finite
    if spec.classifies:
        usable = known & finite
        notes.bad["label: negative"] += int((usable & (y < 0)).sum())
        notes.bad["label: not a whole number"] += int((usable & (y != np.floor(y))).sum())

    w = np.ones(n)
    if spec.has_weight:
        w, known, finite = _numbers(batch.column("w"), notes)
        notes.bad["weight: null"] += int(n - known.sum())
        finite &= w <= _MOST_WEIGHT
        notes.bad[f"weight: NaN, infinite or beyond {_MOST_WEIGHT:g}"] += int(
            (known & ~finite).sum()
        )
        notes.bad["weight: negative"] += int((known & finite & (w < 0)).sum())
        invalid |= ~known | ~finite

    indicator = np.zeros(n, dtype=bool)
    if spec.has_indicator:
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
    column: pa.Array, notes: IngestCounts
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
    spec: BatchColumns, batch: pa.RecordBatch, present: NDArray[np.bool_], notes: IngestCounts
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
    if spec.vectors:
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
    there = values != 0
    sparse = spec.vectors and there.sum() < _SPARSE_DENSITY * d * present.sum()
    if not sparse and not is_sparse.any():
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
    if not sparse:
        dense = np.zeros((n, d), dtype=np.float32)
        dense[entry_row, columns] = values
        return finite, Features(d, dense, values, columns, starts)
    counts = np.bincount(entry_row[there], minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return finite, Features(d, None, values[there], columns[there], starts)
