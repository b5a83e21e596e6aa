"""Find columns whose values vary too little for float32, and what to subtract from them.

Times since 1970, ids and money in cents lose in float32 what varies. Source partitions keep the
range of each column that may be such, in float32; the driver decides on the ranges of all of them.
Minima and maxima do not depend on how rows are partitioned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparknn.core.types import BoolArray, Float32Array, Float64Array, IntArray

# A column is coarse if its range is at most this share of its smallest size. Float32 then leaves
# fewer than 8,192 steps to its range.
_COARSE = 2.0**-12
# Constants below this size that are multiples of 2^-8, such as 0.5 and 1, are constant in float64.
_LARGEST_PLAIN, _PLAIN_STEP = 2.0**16, 2.0**-8
# Rows that rule out most columns before all rows are looked at.
_PROBES = 8


class CoarseRanges:
    """Ranges of the columns of a source partition that may be coarse; NaN is ignored."""

    def __init__(self) -> None:
        self._columns: IntArray | None = None
        self._low = self._high = np.empty(0)

    @property
    def none_left(self) -> bool:
        """Whether no column may be coarse."""
        return self._columns is not None and len(self._columns) == 0

    def update(self, X: Float32Array, rows: IntArray, columns: IntArray | None = None) -> None:
        """Add rows of a batch.

        ``X`` has these ``columns``, ascending, of which no row lacks an entry; by default all. The
        others are 0 in some row, so they cannot be coarse.
        """
        if len(rows) == 0 or self.none_left:
            return
        columns = np.arange(X.shape[1]) if columns is None else columns
        if self._columns is None:
            self._columns = columns
            self._low = np.full(len(columns), np.inf)
            self._high = -self._low
        there = np.isin(self._columns, columns)
        self._columns, self._low, self._high = (
            self._columns[there],
            self._low[there],
            self._high[there],
        )
        for some in (rows[:: -(-len(rows) // _PROBES)], rows):
            if len(self._columns) == 0:
                return
            values = X[np.ix_(some, np.searchsorted(columns, self._columns))]
            low = np.fmin(self._low, np.fmin.reduce(values, axis=0))
            high = np.fmax(self._high, np.fmax.reduce(values, axis=0))
            kept = _may_be_coarse(low, high)
            self._columns, self._low, self._high = self._columns[kept], low[kept], high[kept]

    def to_json(self) -> dict[str, list[float]] | None:
        """Return the range of each column that may be coarse; None if there were no rows."""
        if self._columns is None:
            return None
        columns = zip(self._columns.tolist(), self._low.tolist(), self._high.tolist(), strict=True)
        # A column of missing values only has no range, but must not rule the column out elsewhere.
        return {str(column): [low, high] for column, low, high in columns}


def find_offset(
    parts: Sequence[dict[str, list[float]] | None], n_features: int
) -> Float64Array | None:
    """Return what to subtract from each column before it becomes float32; None if nothing.

    Parameters
    ----------
    parts : sequence
        ``CoarseRanges.to_json`` of every source partition.
    n_features : int

    Returns
    -------
    ndarray, shape (d,), float64, or None
        Numbers of float32 in the middle of each coarse column, 0 for others. A constant is coarse,
        too, as float32 may have rounded all variation away.
    """
    found = [part for part in parts if part is not None]
    columns = set.intersection(*(set(part) for part in found)) if found else set()
    if not columns:
        return None
    names = sorted(columns, key=int)
    ranges = np.array([[part[name] for name in names] for part in found])
    low, high = ranges[:, :, 0].min(axis=0), ranges[:, :, 1].max(axis=0)
    # A column of missing values alone has an infinite range.
    low, high = (np.where(np.isfinite(low) & np.isfinite(high), each, 0) for each in (low, high))
    plain = (low == high) & (np.abs(high) < _LARGEST_PLAIN) & (low % _PLAIN_STEP == 0)
    coarse = _may_be_coarse(low, high) & ~plain
    if not coarse.any():
        return None
    offset = np.zeros(n_features)
    middle = low + (high - low) / 2
    offset[np.array(names, dtype=np.int64)[coarse]] = middle[coarse].astype(np.float32)
    return offset


def _may_be_coarse(low: Float64Array, high: Float64Array) -> BoolArray:
    # By the smallest, as what holds for all rows then holds for the rows of any partition.
    smallest = np.minimum(np.abs(low), np.abs(high))
    with np.errstate(invalid="ignore"):
        return np.asarray(~(high - low > _COARSE * smallest) & (smallest > 0))
