"""Means, deviations and ranges of a worker's rows, and of all workers together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparknn.core.data.batches import iter_chunks
from sparknn.core.data.rows import Rows
from sparknn.core.types import Float64Array
from sparknn.engine.interface import FeatureStatistics

# Rows are made float64 in pieces of this size.
_PIECE_BYTES = 8 << 20


@dataclass
class Sums:
    """Weighted moments of some rows: of each feature, then of each target.

    Parameters
    ----------
    weight : float
    mean, squares, low, high : ndarray, shape (d + k,), float64
        ``squares`` is the weighted sum of squared distances from the mean.
    """

    weight: float
    mean: Float64Array
    squares: Float64Array
    low: Float64Array
    high: Float64Array

    def add(self, other: Sums) -> Sums:
        """The moments of both together (Chan, Golub and LeVeque 1979, eq. 2.1)."""
        if self.weight == 0 or other.weight == 0:
            return other if self.weight == 0 else self
        weight = self.weight + other.weight
        gap = other.mean - self.mean
        return Sums(
            weight,
            self.mean + gap * (other.weight / weight),
            self.squares + other.squares + gap * gap * (self.weight * (other.weight / weight)),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


def measure(rows: Rows) -> Sums:
    """Moments of a worker's training rows, in one pass."""
    width = rows.n_features + rows.n_targets
    sums = Sums(0.0, *np.zeros((4, width)))
    for X, y, weight in iter_chunks(rows, max(1, min(2048, _PIECE_BYTES // (8 * width)))):
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        sums = sums.add(_of(np.hstack([X, targets]), np.asarray(weight, dtype=np.float64)))
    return sums


def _of(values: Float64Array, weight: Float64Array) -> Sums:
    total = float(weight.sum())
    mean = weight @ values / total
    low, high = values.min(axis=0), values.max(axis=0)
    values -= mean
    np.square(values, out=values)
    return Sums(total, mean, weight @ values, low, high)


def combine(parts: list[Sums], n_features: int) -> FeatureStatistics:
    """The moments of all workers; ``parts`` in the order of the partitions."""
    total = parts[0]
    for part in parts[1:]:
        total = total.add(part)
    deviation = np.sqrt(total.squares / max(total.weight, np.finfo(np.float64).tiny))
    # What rounding leaves of a constant column would be blown up by whoever divides by it.
    deviation[total.low == total.high] = 0
    d = n_features
    return FeatureStatistics(
        mean=total.mean[:d],
        deviation=deviation[:d],
        low=total.low[:d],
        high=total.high[:d],
        target_mean=total.mean[d:],
        target_deviation=deviation[d:],
    )
