"""Compute means, deviations and ranges of one worker's rows, and combine those of all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from sparknn.core.data.batches import iter_chunks, row_bytes, split_range
from sparknn.core.data.rows import Rows
from sparknn.core.entries import Entries
from sparknn.core.types import Float32Array, Float64Array
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
    filled : ndarray, shape (d,), float64, optional
        Of sparse rows, the weight of those in which a feature is not 0.
    """

    weight: float
    mean: Float64Array
    squares: Float64Array
    low: Float64Array
    high: Float64Array
    filled: Float64Array | None = None

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows (Chan, Golub and LeVeque 1979, eq. 2.1)."""
        if self.weight == 0 or other.weight == 0:
            return other if self.weight == 0 else self
        weight = self.weight + other.weight
        gap = other.mean - self.mean
        filled = None
        if self.filled is not None and other.filled is not None:
            filled = self.filled + other.filled
        return Moments(
            weight,
            self.mean + gap * (other.weight / weight),
            self.squares + other.squares + gap * gap * (self.weight * (other.weight / weight)),
            np.fmin(self.low, other.low),
            np.fmax(self.high, other.high),
            filled,
        )


def measure(rows: Rows, *, sparse: bool = False) -> Moments:
    """Return the moments of a worker's training rows, read once.

    With ``sparse``, rows stay sparse: the time depends on their entries.
    """
    if sparse:
        return _measure_sparse(rows)
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
    # Missing values make means NaN, which nobody uses: encodings come from a sample.
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)
    values -= mean
    np.square(values, out=values)
    return Moments(total, mean, weight @ values, low, high)


def _measure_sparse(rows: Rows) -> Moments:
    d = rows.n_features
    mean, squares, low, high = np.zeros((4, d + rows.n_targets))
    moments = Moments(0.0, mean, squares, low, high, np.zeros(d))
    for start, stop in split_range(0, rows.n_rows, row_bytes(rows, sparse=True), 1):
        n = stop - start
        chunk = rows.read(start, stop)
        weight = np.asarray(chunk.sample_weight, dtype=np.float64)
        targets = _measure_chunk(np.array(chunk.y, dtype=np.float64).reshape(n, -1), weight)
        features = _measure_entries(chunk.entries(np.arange(n)), weight, d)
        mean, squares, low, high = (
            np.concatenate([getattr(part, name) for part in (features, targets)])
            for name in ("mean", "squares", "low", "high")
        )
        both = Moments(features.weight, mean, squares, low, high, features.filled)
        moments = moments.merge(both)
    return moments


def _measure_entries(entries: Entries, weight: Float64Array, d: int) -> Moments:
    values, columns = entries.values.astype(np.float64), entries.columns
    total, entry_weight = float(weight.sum()), np.repeat(weight, entries.counts)

    def column_sums(terms: Float64Array) -> Float64Array:
        return np.bincount(columns, terms, d).astype(np.float64, copy=False)

    filled = column_sums(entry_weight)
    mean = column_sums(entry_weight * values) / total
    # Two passes: one would lose the variance of large values that differ by little.
    squares = column_sums(entry_weight * np.square(values - mean[columns]))
    squares += np.maximum(total - filled, 0) * np.square(mean)
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    np.minimum.at(low, columns, values)
    np.maximum.at(high, columns, values)
    has_zero = np.bincount(columns, minlength=d) < len(weight)
    low[has_zero] = np.minimum(low[has_zero], 0)
    high[has_zero] = np.maximum(high[has_zero], 0)
    return Moments(total, mean, squares, low, high, filled)


def sample(rows: Rows, n_rows: int) -> Float32Array:
    """Return ``n_rows`` evenly spaced rows' features, shape (n_rows, d)."""
    X = np.empty((n_rows, rows.n_features), dtype=np.float32)
    chosen = np.arange(n_rows) * rows.n_rows // max(n_rows, 1)
    for start, stop in split_range(0, rows.n_rows, row_bytes(rows), 1):
        first, last = np.searchsorted(chosen, [start, stop])
        rows.read(start, stop).take(chosen[first:last] - start, X[first:last])
    return X


def combine(parts: list[Moments], n_features: int) -> FeatureStatistics:
    """Return the statistics of all workers' rows; ``parts`` are in the order of the partitions."""
    total = reduce(Moments.merge, parts)
    tiny = float(np.finfo(np.float64).tiny)
    deviation = np.sqrt(total.squares / max(total.weight, tiny))
    # Rounding errors of a constant column would be blown up by a division by them.
    constant = total.low == total.high
    deviation[constant] = 0
    target_mean = np.where(constant, total.low, total.mean)[n_features:]
    d = n_features
    return FeatureStatistics(
        mean=total.mean[:d],
        deviation=deviation[:d],
        low=total.low[:d],
        high=total.high[:d],
        target_mean=target_mean,
        target_deviation=deviation[d:],
        target_low=total.low[d:],
        target_high=total.high[d:],
        filled=None if total.filled is None else total.filled / max(total.weight, tiny),
    )
