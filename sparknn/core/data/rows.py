"""The rows that one worker trains on, independent of how they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sparknn.core.entries import Entries
from sparknn.core.types import Float32Array, FloatArray, IntArray


class Slice(Protocol):
    """A range of consecutive rows that supports fast gathering."""

    y: FloatArray
    sample_weight: FloatArray

    def take(self, index: IntArray, out: Float32Array) -> None:
        """Gather the rows ``index``, shape (n,), into ``out``, shape (n, d)."""

    def entries(self, index: IntArray) -> Entries:
        """Return what is not 0 of the rows numbered ``index``, shape (n,)."""

    def count_columns(self, n_columns: int) -> IntArray:
        """Count the entries of each column, shape (n_columns,)."""


class Rows(Protocol):
    """One worker's rows. Reading a range twice gives the same values."""

    n_rows: int
    n_features: int
    # Values in a row's label: 1 for classes.
    n_targets: int

    @property
    def n_entries(self) -> int:
        """Numbers in all rows that are not 0."""

    def read(self, start: int, stop: int) -> Slice:
        """Read rows ``start`` to ``stop``, and only these, into memory."""


@dataclass
class DenseSlice:
    """Rows of a dense matrix.

    Parameters
    ----------
    X : ndarray, shape (n, d), float32
    y : ndarray, shape (n,) or (n, k)
    sample_weight : ndarray, shape (n,)
    """

    X: Float32Array
    y: FloatArray
    sample_weight: FloatArray

    def take(self, index: IntArray, out: Float32Array) -> None:
        # mode="clip" writes straight into `out`; the default uses a second buffer.
        self.X.take(index, axis=0, out=out, mode="clip")

    def entries(self, index: IntArray) -> Entries:
        return Entries.of(self.X[index])

    def count_columns(self, n_columns: int) -> IntArray:
        return (self.X != 0).sum(axis=0)


@dataclass
class SparseSlice:
    """Rows in compressed sparse row (CSR) format, each with at most one entry per column.

    Parameters
    ----------
    values : ndarray, shape (nnz,), float32
    columns : ndarray, shape (nnz,), int32
    starts : ndarray, shape (n + 1,), int64
        Row ``i`` owns entries ``starts[i]`` to ``starts[i + 1]``.
    y, sample_weight : ndarray
    """

    values: Float32Array
    columns: IntArray
    starts: IntArray
    y: FloatArray
    sample_weight: FloatArray

    def take(self, index: IntArray, out: Float32Array) -> None:
        values, columns, counts = self.entries(index)
        out[...] = 0
        out[np.repeat(np.arange(len(index)), counts), columns] = values

    def entries(self, index: IntArray) -> Entries:
        return Entries.gather(self.values, self.columns, self.starts, index)

    def count_columns(self, n_columns: int) -> IntArray:
        return np.bincount(self.columns, minlength=n_columns)


@dataclass
class ArrayRows:
    """Rows held in memory.

    Parameters
    ----------
    X : ndarray, shape (n, d), float32
    y : ndarray, shape (n,) for classes or (n, k) for targets
    sample_weight : ndarray, shape (n,), float64, optional
        1 for every row by default.
    """

    X: Float32Array
    y: FloatArray
    sample_weight: FloatArray | None = None

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return self.X.shape[1]

    @cached_property
    def n_entries(self) -> int:
        return int(np.count_nonzero(self.X))

    @property
    def n_targets(self) -> int:
        return 1 if self.y.ndim == 1 else self.y.shape[1]

    def read(self, start: int, stop: int) -> DenseSlice:
        if self.sample_weight is None:
            weight = np.ones(stop - start)
        else:
            weight = np.asarray(self.sample_weight[start:stop])
        return DenseSlice(self.X[start:stop], self.y[start:stop], weight)


@dataclass
class SparseRows:
    """Rows held in memory in compressed sparse row form, as in ``SparseSlice``.

    Parameters
    ----------
    values, columns, starts : ndarray
    n_features : int
    y : ndarray, shape (n,) for classes or (n, k) for targets
    sample_weight : ndarray, shape (n,), float64, optional
        1 for every row by default.
    """

    values: Float32Array
    columns: IntArray
    starts: IntArray
    n_features: int
    y: FloatArray
    sample_weight: FloatArray | None = None

    @property
    def n_rows(self) -> int:
        return len(self.starts) - 1

    @property
    def n_entries(self) -> int:
        return len(self.values)

    @property
    def n_targets(self) -> int:
        return 1 if self.y.ndim == 1 else self.y.shape[1]

    def read(self, start: int, stop: int) -> SparseSlice:
        starts = self.starts[start : stop + 1]
        mine = slice(int(starts[0]), int(starts[-1]))
        if self.sample_weight is None:
            weight = np.ones(stop - start)
        else:
            weight = np.asarray(self.sample_weight[start:stop])
        return SparseSlice(
            self.values[mine], self.columns[mine], starts - starts[0], self.y[start:stop], weight
        )
