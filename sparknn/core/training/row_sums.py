"""Exact sums over workers of rows of weights, of which each worker touches some.

As in ``aggregation``, numbers are added as 64-bit fixed-point integers, row by row: the bytes do
not depend on the order in which workers are merged, nor on which of them touched what.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparknn.core.training.fixed_point import FRACTION_BITS
from sparknn.core.types import Float32Array, Float64Array, FloatArray, IntArray

# Numbers that are worked on at a time: they stay in the caches.
_PART = 1 << 17
_ALL = slice(None)


@dataclass(frozen=True)
class RowSums:
    """Rows of weights of some workers, each averaged over the workers that touched it.

    A feature that one worker of eight has seen moves as that worker found, not by an eighth of it
    (Ding et al., "Federated submodel optimization for hot and cold data features", NeurIPS 2022).
    As everywhere, workers weigh what their rows weigh.

    Parameters
    ----------
    columns : ndarray, shape (t,), int32
        Which rows, ascending; what no worker touched is not in it.
    values : ndarray, shape (t, h), float32 or int64
        One worker's weights as they are, or the sum of several workers', times their shares.
    shares : ndarray, shape (t,) or, of one worker, (1,), int64
        Sum of the shares of those who touched a row, in fixed point.
    n_workers : ndarray, shape (t,) or (1,), int32
        How many touched it.
    """

    columns: IntArray
    values: Float32Array | NDArray[np.int64]
    shares: NDArray[np.int64]
    n_workers: IntArray

    @classmethod
    def from_worker(cls, columns: IntArray, values: Float32Array, share: float) -> RowSums:
        """What one worker touched, in any order."""
        order = np.argsort(columns)
        # A share may be less than the smallest number.
        fixed = max(1, round(share * 2.0**FRACTION_BITS))
        return cls(
            columns[order].astype(np.int32),
            values[order],
            np.array([fixed], dtype=np.int64),
            np.ones(1, dtype=np.int32),
        )

    def merge(self, other: RowSums) -> RowSums:
        """The sum of both. Commutes and associates to the byte."""
        columns = np.union1d(self.columns, other.columns)
        values = np.zeros((len(columns), self.values.shape[1]), dtype=np.int64)
        shares = np.zeros(len(columns), dtype=np.int64)
        n_workers = np.zeros(len(columns), dtype=np.int32)
        for each in (self, other):
            at = np.searchsorted(columns, each.columns)
            for part in each.parts():
                values[at[part]] += each.to_fixed_point(part)
            shares[at] += each.shares
            n_workers[at] += each.n_workers
        return RowSums(columns, values, shares, n_workers)

    def parts(self) -> list[slice]:
        """Rows that fit a processor's caches together."""
        step = max(1, _PART // max(self.values.shape[1], 1))
        return [slice(a, a + step) for a in range(0, len(self.columns), step)]

    def to_fixed_point(self, part: slice = _ALL) -> NDArray[np.int64]:
        """The values times their shares, as fixed-point integers."""
        values = self.values[part]
        if values.dtype == np.int64:
            return values.astype(np.int64, copy=False)
        product = values * float(self.shares[0])
        return np.rint(product, out=product).astype(np.int64)

    def mean(self, part: slice = _ALL) -> FloatArray:
        """Each row's mean over those who touched it, shape (t, h); of one worker its float32."""
        values = self.values[part]
        if values.dtype != np.int64:
            return values.astype(np.float32, copy=False)
        mean: Float64Array = values / self.shares[part, None].astype(np.float64)
        return mean

    def squared_distance(self, whole: FloatArray) -> float:
        """Squared distance of the mean from these rows of ``whole``, shape (d, h)."""
        square = 0.0
        for part in self.parts():
            move = self.mean(part).astype(np.float64) - whole[self.columns[part]]
            square += float(np.square(move).sum())
        return square
