"""Sparse rows as arrays of their entries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparknn.core.types import BoolArray, Float64Array, FloatArray, IntArray


class Entries(NamedTuple):
    """The entries of some rows, row after row.

    Parameters
    ----------
    values, columns : ndarray, shape (nnz,)
    counts : ndarray, shape (n,)
        Entries of each row.
    """

    values: FloatArray
    columns: IntArray
    counts: IntArray

    @classmethod
    def of(cls, X: FloatArray) -> Entries:
        """The entries of a dense matrix, shape (n, d)."""
        there = X != 0
        return cls(X[there], there.nonzero()[1], there.sum(axis=1))

    @classmethod
    def gather(
        cls, values: FloatArray, columns: IntArray, starts: IntArray, index: IntArray
    ) -> Entries:
        """Pick the rows ``index`` from CSR arrays, in the order of ``index``."""
        first = starts[index]
        counts = starts[index + 1] - first
        # Positions of the entries of all gathered rows, one row after the other.
        ends = np.cumsum(counts)
        picked = np.arange(ends[-1] if len(ends) else 0)
        picked += np.repeat(first - (ends - counts), counts)
        return cls(values[picked], columns[picked], counts)

    @property
    def row_numbers(self) -> IntArray:
        """The row of each entry, shape (nnz,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def dense(self, d: int) -> FloatArray:
        """The dense matrix, shape (n, d); entries of one row and column add up."""
        X = np.zeros((len(self.counts), d), dtype=self.values.dtype)
        np.add.at(X.reshape(-1), self.row_numbers * d + self.columns, self.values)
        return X

    def chosen(self, which: BoolArray) -> Entries:
        """The rows where ``which``, shape (n,), is true."""
        keep = np.repeat(which, self.counts)
        return Entries(self.values[keep], self.columns[keep], self.counts[which])

    def less(self, offset: Float64Array) -> Entries:
        """The rows less an offset, shape (d,), subtracted in float64; columns ascending.

        Where the offset is not 0, every row gets an entry.
        """
        shifted = np.flatnonzero(offset)
        there = np.isin(self.columns, shifted)
        absent = np.ones((len(self.counts), len(shifted)), dtype=bool)
        absent[self.row_numbers[there], np.searchsorted(shifted, self.columns[there])] = False
        rows, positions = absent.nonzero()
        values = np.concatenate([self.values, np.zeros(len(rows))])
        columns = np.concatenate([self.columns, shifted[positions]])
        order = np.lexsort((columns, np.concatenate([self.row_numbers, rows])))
        columns = columns[order]
        return Entries(values[order] - offset[columns], columns, self.counts + absent.sum(axis=1))

    def without_zeros(self) -> Entries:
        """The same rows in float32, without the entries that are 0 in it."""
        values = self.values.astype(np.float32, copy=False)
        there = values != 0
        if there.all():
            return self._replace(values=values)
        counts = np.bincount(self.row_numbers[there], minlength=len(self.counts))
        return Entries(values[there], self.columns[there], counts)
