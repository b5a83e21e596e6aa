"""Turn a worker's rows into the inputs of a step: standardised, encoded, or by their entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparknn.core.config import TrainConfig
from sparknn.core.data.rows import Slice
from sparknn.core.entries import Entries
from sparknn.core.nn.encoding import Encoder
from sparknn.core.nn.input_layer import SparseBatch
from sparknn.core.types import Float32Array, FloatArray, IntArray

# Rows whose categories are counted at a time.
_COUNTED_ROWS = 8192


class Inputs:
    """The inputs of mini-batches of at most ``n_rows``.

    Parameters
    ----------
    config : TrainConfig
    n_rows : int
    touched : ndarray, shape (t,), optional
        Columns of the sparse block, in the order in which they are numbered; all by default.
    """

    def __init__(self, config: TrainConfig, n_rows: int, touched: IntArray | None = None) -> None:
        self._config = config
        self._sparse = SparseColumns.of(config, touched) if config.n_sparse else None
        self._encoder: Encoder | None = None
        encoding, standardizer = config.encoding, config.standardizer
        if encoding is not None:
            self._rows = np.empty((n_rows, encoding.n_features), dtype=np.float32)
            if standardizer is None:
                self._encoder = Encoder(encoding)
            else:
                shift, factor = standardizer.shift, standardizer.factor
                n = config.n_sparse
                self._encoder = Encoder(encoding, shift[n:], factor[n:])

    def take(
        self, chunk: Slice, index: IntArray, out: Float32Array
    ) -> tuple[Float32Array, SparseBatch | None]:
        """Return the rows ``index`` of a slice: dense inputs, written into ``out``, and entries.

        Parameters
        ----------
        out : ndarray, shape (at least n, n_dense), float32
        """
        config, n = self._config, len(index)
        if self._encoder is not None:
            rows = self._rows[:n]
            chunk.take(index, rows)
            sparse = None
            if self._sparse is not None:
                sparse = self._sparse.batch(self._encoder.encoding.entries(rows))
            return self._encoder.encode(rows, out), sparse
        X = out[:n]
        if self._sparse is not None:
            return X, self._sparse.batch(chunk.entries(index))
        chunk.take(index, X)
        if config.standardizer is not None:
            config.standardizer.apply(X)
        return X, None


@dataclass(frozen=True)
class SparseColumns:
    """How the columns of the sparse block are numbered and standardised.

    Parameters
    ----------
    number : ndarray, shape (n_sparse,), optional
        A column's number; by default, columns keep theirs.
    factor : ndarray, shape (n_sparse,), optional
        What values are multiplied by.
    always : ndarray, shape (m,)
        Numbers of the columns that every row touches, because they are shifted ...
    shift : ndarray, shape (m,)
        ... and by how much, after multiplication.
    """

    number: IntArray | None
    factor: FloatArray | None
    always: IntArray
    shift: FloatArray

    @classmethod
    def of(cls, config: TrainConfig, touched: IntArray | None = None) -> SparseColumns:
        """Number the columns ``touched`` in their order; all columns if they are not given."""
        number = None
        if touched is not None:
            number = np.zeros(config.n_sparse, dtype=np.intp)
            number[touched] = np.arange(len(touched))
        always = shifted_columns(config)
        shift: FloatArray = np.empty(0, dtype=np.float32)
        factor = None
        if config.standardizer is not None:
            factor = config.standardizer.factor[: config.n_sparse]
            shift = (config.standardizer.shift[: config.n_sparse] * factor)[always]
        if number is not None:
            always = number[always]
        return cls(number, factor, always, shift)

    def batch(self, entries: Entries) -> SparseBatch:
        """Return rows as a mini-batch."""
        if self.factor is not None:
            factors = self.factor[entries.columns].astype(np.float32, copy=False)
            entries = entries._replace(values=entries.values * factors)
        if self.number is not None:
            entries = entries._replace(columns=self.number[entries.columns])
        return SparseBatch.of(entries, self.always, self.shift)


def shifted_columns(config: TrainConfig) -> IntArray:
    """Columns that are centred: of sparse rows few are, those with entries in most rows."""
    if config.standardizer is None:
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(config.standardizer.shift[: config.n_sparse])


def count_columns(chunk: Slice, n_rows: int, config: TrainConfig) -> IntArray:
    """Count the entries of each column of the sparse block in a slice of ``n_rows``."""
    encoding = config.encoding
    if encoding is None:
        return chunk.count_columns(config.n_sparse)
    counts = np.zeros(config.n_sparse, dtype=np.int64)
    for start in range(0, n_rows, _COUNTED_ROWS):
        index = np.arange(start, min(start + _COUNTED_ROWS, n_rows))
        rows = np.empty((len(index), encoding.n_features), dtype=np.float32)
        chunk.take(index, rows)
        counts += np.bincount(encoding.entries(rows).columns, minlength=config.n_sparse)
    return counts
