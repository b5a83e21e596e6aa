"""Compute means, deviations and ranges of one worker's rows, and combine those of all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from sparknn.core.data.batches import iter_chunks
from sparknn.core.data.rows import Rows
from sparknn.core.types import Float64Array
from sparknn.engine.interface import FeatureStatistics

# Rows are converted to float64 in chunks of about this size.
_CHUNK_BYTES = 8 << 20


@dataclass
class Moments:
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

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows (Chan, Golub and LeVeque 1979, eq. 2.1)."""
        if self.weight == 0 or other.weight == 0:
            return other if self.weight == 0 else self
        weight = self.weight + other.weight
        gap = other.mean - self.mean
        return Moments(
            weight,
            self.mean + gap * (other.weight / weight),
            self.squares + other.squares + gap * gap * (self.weight * (other.weight / weight)),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


def measure(rows: Rows) -> Moments:
    """Return the moments of a worker's training rows, read once."""
    width = rows.n_features + rows.n_targets
    moments = Moments(0.0, *np.zeros((4, width)))
    for X, y, weight in iter_chunks(rows, max(1, min(2048, _CHUNK_BYTES // (8 * width)))):
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        chunk = _measure_chunk(np.hstack([X, targets]), np.asarray(weight, dtype=np.float64))
        moments = moments.merge(chunk)
    return moments


def _measure_chunk(values: Float64Array, weight: Float64Array) -> Moments:
    total = float(weight.sum())
    mean = weight @ values / total
    low, high = values.min(axis=0), values.max(axis=0)
    values -= mean
    np.square(values, out=values)
    return Moments(total, mean, weight @ values, low, high)


def combine(parts: list[Moments], n_features: int) -> FeatureStatistics:
    """Return the statistics of all workers' rows; ``parts`` are in the order of the partitions."""
    total = reduce(Moments.merge, parts)
    deviation = np.sqrt(total.squares / max(total.weight, np.finfo(np.float64).tiny))
    # Rounding errors of a constant column would be blown up by a division by them.
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
