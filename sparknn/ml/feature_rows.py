"""Decode a column of features from arrow or pandas; rows are made dense a few at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from sparknn.core.entries import Entries
from sparknn.core.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class ListColumn:
    """Hold a column of lists: all entries one after another.

    Parameters
    ----------
    values : ndarray, shape (N,)
    starts : ndarray, shape (n + 1,), int64
        Row i has entries ``starts[i]`` to ``starts[i + 1]``.
    """

    values: FloatArray
    starts: IntArray

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.starts)

    def cut(self, start: int, stop: int) -> ListColumn:
        """Return rows ``start`` to ``stop``."""
        first, last = self.starts[start], self.starts[stop]
        return ListColumn(self.values[first:last], self.starts[start : stop + 1] - first)


@dataclass(frozen=True)
class DecodedRows:
    """Hold decoded features, not dense yet.

    Parameters
    ----------
    values : ListColumn
        Entries of every row; those of a null row are ignored.
    present : ndarray, shape (n,), bool
        Rows that are not null.
    sizes : ndarray, shape (n,)
        Number of features of each row.
    indices : ListColumn, optional
        Positions of the entries of sparse rows; None if no row is sparse.
    is_sparse : ndarray, shape (n,), bool, optional
    """

    values: ListColumn
    present: BoolArray
    sizes: IntArray
    indices: ListColumn | None = None
    is_sparse: BoolArray | None = None

    def dense(self, start: int, stop: int, n_features: int) -> FloatArray:
        """Return rows ``start`` to ``stop``, shape (n, d); a null row is NaN."""
        n = stop - start
        part, present = self.values.cut(start, stop), self.present[start:stop]
        if self.indices is None or self.is_sparse is None:
            if present.all():
                return part.values.reshape(n, n_features)
            X = np.full((n, n_features), np.nan, dtype=_float_type(part.values))
            X[present] = part.values[np.repeat(present, part.lengths)].reshape(-1, n_features)
            return X
        with np.errstate(over="ignore"):
            entries = part.values.astype(_float_type(part.values), copy=False)
        X = np.zeros((n, n_features), dtype=entries.dtype)
        sparse = self.is_sparse[start:stop] & present
        full = present & ~sparse
        lengths = part.lengths
        X[full] = entries[np.repeat(full, lengths)].reshape(-1, n_features)
        positions = self.indices.cut(start, stop)
        row_of = np.repeat(np.flatnonzero(sparse), lengths[sparse])
        column_of = positions.values[np.repeat(sparse, positions.lengths)]
        X[row_of, column_of] = entries[np.repeat(sparse, lengths)]
        X[~present] = np.nan
        return X

    def entries(self, n_features: int) -> Entries:
        """All rows by their entries; a null row has none."""
        assert self.indices is not None
        assert self.is_sparse is not None
        sparse = self.is_sparse & self.present
        full = self.present & ~sparse
        with np.errstate(over="ignore"):
            flat = self.values.values
            values: FloatArray = flat.astype(_float_type(flat), copy=False)
        counts = np.where(self.present, self.values.lengths, 0)
        kept = np.repeat(self.present, self.values.lengths)
        columns = np.empty(len(values), dtype=np.int64)
        # Dense rows have an entry in every column.
        columns[np.repeat(full, self.values.lengths)] = np.tile(np.arange(n_features), full.sum())
        positions = np.repeat(sparse, self.indices.lengths)
        columns[np.repeat(sparse, self.values.lengths)] = self.indices.values[positions]
        return Entries(values[kept], columns[kept], counts)


def _float_type(values: FloatArray) -> np.dtype[np.floating]:
    """Doubles are sent only if the model has an offset, and must stay doubles."""
    return np.dtype(np.float64 if values.dtype == np.float64 else np.float32)


def decode(values: pa.ListArray, *vector: pa.Array) -> DecodedRows:
    """Decode arrays of numbers, or the fields of vectors. A null entry becomes NaN."""
    present = np.ones(len(values), dtype=bool)
    if values.null_count:
        present = values.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    lists = _lists(values)
    if not vector:
        return DecodedRows(lists, present, lists.lengths)
    types, sizes, indices = vector
    is_sparse = (types.fill_null(1).to_numpy(zero_copy_only=False) == 0) & present
    if not is_sparse.any():
        return DecodedRows(lists, present, lists.lengths)
    sizes = np.where(is_sparse, sizes.fill_null(0).to_numpy(zero_copy_only=False), lists.lengths)
    return DecodedRows(lists, present, sizes, _lists(indices), is_sparse)


def decode_pandas(values: pd.Series, *vector: pd.Series) -> DecodedRows:
    """Decode pandas columns, whose lists are objects."""
    present = values.notna().to_numpy()
    lists = _concatenate(values, present)
    if not vector:
        return DecodedRows(lists, present, lists.lengths)
    types, sizes, indices = vector
    is_sparse = (types.fillna(1).to_numpy() == 0) & present
    if not is_sparse.any():
        return DecodedRows(lists, present, lists.lengths)
    n_features = np.where(is_sparse, sizes.fillna(0).to_numpy(), lists.lengths).astype(np.int64)
    return DecodedRows(lists, present, n_features, _concatenate(indices, is_sparse), is_sparse)


def _lists(column: pa.ListArray) -> ListColumn:
    starts = column.offsets.to_numpy().astype(np.int64)
    values = column.values[int(starts[0]) : int(starts[-1])]
    # A null entry becomes NaN here.
    numbers = values.to_numpy(zero_copy_only=False)
    return ListColumn(numbers, starts - starts[0])


def _concatenate(column: pd.Series, present: BoolArray) -> ListColumn:
    rows = column.to_numpy()
    lengths = np.zeros(len(rows), dtype=np.int64)
    lengths[present] = [len(row) for row in rows[present]]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if not present.any():
        return ListColumn(np.empty(0), starts)
    values = np.concatenate(rows[present])
    if values.dtype == object:
        values = values.astype(np.float64)
    return ListColumn(values, starts)
