"""Ingest: convert an arrow batch to numpy arrays, and count its invalid rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparknn.core.entries import Entries
from sparknn.core.nn.input_layer import SPARSE_DENSITY
from sparknn.core.types import Float32Array, Float64Array, FloatArray, IntArray
from sparknn.engine.offsets import CoarseRanges

# Largest weight of a row: keeps sums over rows and epochs below the maximum of float64.
_MAX_WEIGHT = 1e290


@dataclass(frozen=True)
class IngestTask:
    """Describe an ingest to the Python workers that run it.

    Parameters
    ----------
    fit_id : str
        Part of the name of the folder of this fit's shards.
    keys : tuple of int
        For each worker a number that Spark's hash partitioner sends to that worker's partition.
    classifies : bool
        Whether labels must be whole numbers from 0.
    vectors : bool
        Whether features are the fields of vectors, not arrays.
    has_weight, has_indicator : bool
        Whether there is a weight and a validation indicator.
    seed : int
    shuffle : bool
    validation_fraction : float
    keep_missing : bool
    categories : tuple of (int, int)
        See ``DataSpec``.
    center : bool
        Whether to look for features that float32 is too coarse for.
    offset : ndarray, shape (d,), float64, optional
        Subtracted from the features, which are float64, before they become float32.
    shard_dir : str
        See ``DataSpec``.
    """

    fit_id: str
    keys: tuple[int, ...]
    classifies: bool
    vectors: bool
    has_weight: bool
    has_indicator: bool
    seed: int
    shuffle: bool
    validation_fraction: float
    keep_missing: bool = False
    categories: tuple[tuple[int, int], ...] = ()
    center: bool = False
    offset: Float64Array | None = None
    shard_dir: str = ""


@dataclass
class Features:
    """Features of an arrow batch: dense, shape (n, d), or CSR arrays of sparse rows."""

    n_features: int
    dense: NDArray[Any] | None
    values: NDArray[np.float32]
    columns: NDArray[np.int32]
    starts: NDArray[np.int64]

    def column(self, feature: int) -> FloatArray:
        """Return a feature of every row, shape (n,)."""
        if self.dense is not None:
            return self.dense[:, feature]
        values = np.zeros(len(self.starts) - 1, dtype=np.float32)
        at = np.flatnonzero(self.columns == feature)
        values[np.searchsorted(self.starts, at, side="right") - 1] = self.values[at]
        return values

    def take(self, index: NDArray[np.int64]) -> tuple[FloatArray, IntArray, IntArray]:
        """Return ``x``, ``columns`` and ``counts`` of some rows, as a shard stores them."""
        if self.dense is not None:
            return self.dense[index], np.empty(0, np.int32), np.empty(0, np.int64)
        return Entries.gather(self.values, self.columns, self.starts, index)


class IngestCounts:
    """Counts that a source partition reports to the driver: rows, invalid rows by reason, sizes."""

    def __init__(self) -> None:
        self.bad: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()
        self.n_seen = 0
        self.n_skipped = 0
        # Sum of the checksums of the blocks that were sent to workers.
        self.sent = 0
        self.ranges = CoarseRanges()
        # The least and the greatest draw of a valid row for validation.
        self.draws: list[float] = []

    def count(self, reason: str, rows: NDArray[np.bool_]) -> None:
        """Add the number of marked rows to those that are bad for a reason."""
        self.bad[reason] += int(rows.sum())

    def note_draws(self, draws: FloatArray) -> None:
        """Keep the extremes of the draws of some valid rows."""
        if len(draws):
            found = np.append(draws, self.draws)
            self.draws = [float(found.min()), float(found.max())]

    def to_json(self) -> str:
        sizes = {str(size): count for size, count in self.sizes.items()}
        return json.dumps(
            {
                "bad": self.bad,
                "sizes": sizes,
                "seen": self.n_seen,
                "skipped": self.n_skipped,
                "sent": self.sent,
                "ranges": self.ranges.to_json(),
                "draws": self.draws,
            }
        )


Decoded = tuple[Features, FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_]]


def decode(task: IngestTask, batch: pa.RecordBatch, counts: IngestCounts) -> Decoded | None:
    """Convert arrow columns to numpy, and check every column, so that one pass finds all mistakes.

    Returns
    -------
    features, y, w, indicator, valid : tuple, or None
        ``valid`` marks the rows to train on. None if the rows have no common number of features.
    """
    n = batch.num_rows
    counts.n_seen += n
    present = _present(batch.column("x"))
    if task.vectors:
        present &= _present(batch.column("type"))
    counts.count("features: null", ~present)
    finite, features = _features(task, batch, present, counts)
    counts.count("features: NaN, infinite, beyond float32 or null inside", present & ~finite)
    invalid = ~present | ~finite
    if task.categories and features is not None:
        strange = present & finite & ~_has_categories(task, features, n)
        counts.count("features: not a value of a category", strange)

    y, known, finite = _numbers(batch.column("y"), counts)
    counts.count("label: null", ~known)
    counts.count("label: NaN or infinite", known & ~finite)
    invalid |= ~known | ~finite
    if task.classifies:
        usable = known & finite
        counts.count("label: negative", usable & (y < 0))
        counts.count("label: not a whole number", usable & (y != np.floor(y)))

    w = np.ones(n)
    if task.has_weight:
        w, known, finite = _numbers(batch.column("w"), counts)
        counts.count("weight: null", ~known)
        finite &= w <= _MAX_WEIGHT
        counts.count(f"weight: NaN, infinite or beyond {_MAX_WEIGHT:g}", known & ~finite)
        counts.count("weight: negative", known & finite & (w < 0))
        invalid |= ~known | ~finite

    indicator = np.zeros(n, dtype=bool)
    if task.has_indicator:
        flags = batch.column("validation")
        known = _present(flags)
        counts.count("validation indicator: null", ~known)
        indicator = flags.fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
        invalid |= ~known

    counts.n_skipped += int(invalid.sum())
    if features is None:
        return None
    valid = ~invalid & (w > 0)
    if task.center and task.offset is None:
        _add_ranges(counts.ranges, features, np.flatnonzero(valid))
    return features, y, w, indicator, valid


def _add_ranges(ranges: CoarseRanges, features: Features, rows: NDArray[np.int64]) -> None:
    if features.dense is not None:
        ranges.update(features.dense, rows)
        return
    if ranges.none_left:
        return
    values, columns, _ = features.take(rows)
    n_entries = np.bincount(columns, minlength=features.n_features)
    full = np.flatnonzero(n_entries == len(rows))
    X = values[np.isin(columns, full)].reshape(len(rows), len(full)).astype(np.float32, copy=False)
    ranges.update(X, np.arange(len(rows)), full)


def _has_categories(task: IngestTask, features: Features, n: int) -> NDArray[np.bool_]:
    """Return which rows have a value, or NaN, in every category."""
    good = np.ones(n, dtype=bool)
    for feature, n_values in task.categories:
        if feature >= features.n_features:
            continue
        values = features.column(feature)
        usable = (values >= 0) & (values == np.floor(values)) & (values < (n_values or np.inf))
        good &= usable | np.isnan(values)
    return good


def _present(column: pa.Array) -> NDArray[np.bool_]:
    present: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    return present


def _numbers(
    column: pa.Array, counts: IngestCounts
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return values, shape (n,) or, from arrays, (n, k), and which rows are not null and finite."""
    known = _present(column)
    if not pa.types.is_list(column.type):
        values = column.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
        return values, known, np.isfinite(values)
    lengths = np.diff(column.offsets.to_numpy())
    widths = np.unique(lengths[known])
    for width in widths.tolist():
        counts.count(f"label size {width}", known & (lengths == width))
    width = int(widths.max()) if len(widths) else 0
    rows = np.full((len(column), width), np.nan)
    full = known & (lengths == width)
    flat = column.flatten()
    entries = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    keep = np.repeat(full, np.where(known, lengths, 0))
    rows[full] = entries[keep].reshape(int(full.sum()), width)
    # Rows of another size have been counted above, and are an error.
    return rows, known, np.isfinite(rows).all(axis=1) | ~full


def _features(
    task: IngestTask, batch: pa.RecordBatch, present: NDArray[np.bool_], counts: IngestCounts
) -> tuple[NDArray[np.bool_], Features | None]:
    """Return which rows are finite, and the features; None if their sizes differ or none exist."""
    n = batch.num_rows
    lists = batch.column("x")
    lengths = np.where(present, np.diff(lists.offsets.to_numpy()), 0)
    # A null list may still own entries. flatten() skips them, as the lengths above do.
    flat = lists.flatten()
    offset = task.offset
    # With an offset, numbers stay float64 until it is subtracted.
    kind = np.float32 if offset is None else np.float64
    values = flat.to_numpy(zero_copy_only=False).astype(kind, copy=False)
    good = np.isfinite(values)
    if offset is not None:
        # As in the first pass, in which numbers were float32.
        with np.errstate(over="ignore"):
            good = np.isfinite(values.astype(np.float32))
    if task.keep_missing:
        # A null is NaN here.
        good |= np.isnan(values)
    elif flat.null_count:
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
        counts.sizes[int(size)] += int(count)
    widths = np.unique(sizes[present])
    if len(widths) != 1:
        return finite, None
    d = int(widths[0])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    nonzero = values != 0
    # Denser rows train faster as dense ones, even if they arrive as sparse vectors (of MNIST's
    # pixels, one in five is not 0).
    sparse = task.vectors and nonzero.sum() < SPARSE_DENSITY * d * present.sum()
    if not sparse and not is_sparse.any() and present.all():
        dense = _less(values.reshape(n, d), offset)
        return finite, Features(d, dense, dense.reshape(-1), np.empty(0, np.int32), starts)

    columns = np.empty(len(values), dtype=np.int32)
    entry_row = np.repeat(np.arange(n), lengths)
    in_sparse = is_sparse[entry_row]
    if is_sparse.any():
        columns[in_sparse] = batch.column("indices").flatten().to_numpy(zero_copy_only=False)
    columns[~in_sparse] = (np.arange(len(values)) - starts[entry_row])[~in_sparse]
    if not sparse:
        dense = np.zeros((n, d), dtype=kind)
        dense[entry_row, columns] = values
        return finite, Features(d, _less(dense, offset), values, columns, starts)
    if offset is not None:
        # No row lacks an entry in a column that has an offset.
        values = _less(values, offset[columns])
        nonzero = values != 0
    per_row = np.bincount(entry_row[nonzero], minlength=n)
    starts = np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64)
    return finite, Features(d, None, values[nonzero], columns[nonzero], starts)


def _less(X: FloatArray, offset: Float64Array | None) -> Float32Array:
    """Return ``X - offset`` as float32; ``X`` itself without an offset."""
    if offset is None:
        return X
    with np.errstate(over="ignore", invalid="ignore"):
        return (X - offset).astype(np.float32)
