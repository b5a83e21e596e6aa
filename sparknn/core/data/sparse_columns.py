"""The columns of sparse rows as mini-batches number and standardise them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparknn.core.config import TrainConfig
from sparknn.core.data.rows import Slice
from sparknn.core.nn.input_layer import SparseBatch
from sparknn.core.types import FloatArray, IntArray


@dataclass(frozen=True)
class SparseColumns:
    """How columns are numbered and standardised.

    Parameters
    ----------
    number : ndarray, shape (d,), optional
        A column's number; by default, columns keep theirs.
    factor : ndarray, shape (d,), optional
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
            factor = config.standardizer.factor
            shift = (config.standardizer.shift * factor)[always]
        if number is not None:
            always = number[always]
        return cls(number, factor, always, shift)

    def batch(self, chunk: Slice, index: IntArray) -> SparseBatch:
        """The rows ``index`` of a slice."""
        entries = chunk.entries(index)
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
    return np.flatnonzero(config.standardizer.shift)
