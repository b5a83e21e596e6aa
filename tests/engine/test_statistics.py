"""Statistics of shards against numpy's, in float64."""

from typing import Any

import numpy as np
import pytest
from engines import spec, vectors
from pyspark.sql import SparkSession
from toys import CsrRows, blobs

from sparknn.core.data import batches
from sparknn.core.data.rows import ArrayRows, Rows
from sparknn.engine import open_engine, statistics
from sparknn.engine.interface import FeatureStatistics
from sparknn.engine.statistics import combine, measure

Array = np.ndarray[Any, Any]


def assert_moments(found: FeatureStatistics, X: Array, y: Array, weight: Array) -> None:
    X, y = X.astype(np.float64), y.reshape(len(X), -1)
    for values, mean, deviation in (
        (X, found.mean, found.deviation),
        (y, found.target_mean, found.target_deviation),
    ):
        expected = np.average(values, axis=0, weights=weight)
        spread = np.sqrt(np.average((values - expected) ** 2, axis=0, weights=weight))
        # A constant column's is 0 to the bit, which numpy's is not.
        spread[np.ptp(values, axis=0) == 0] = 0
        np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(deviation, spread, rtol=1e-9, atol=1e-12)
        assert mean.dtype == deviation.dtype == np.float64
    np.testing.assert_array_equal(found.low, X.min(axis=0))
    np.testing.assert_array_equal(found.high, X.max(axis=0))


def rows_of(X: Array, y: Array, weight: Array, kind: str) -> Rows:
    return CsrRows(X, y, weight) if kind == "sparse" else ArrayRows(X, y, weight)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
@pytest.mark.parametrize("chunk_bytes", [1, 1000, 8 << 20])
def test_weighted_moments_far_from_zero(
    monkeypatch: pytest.MonkeyPatch, kind: str, offset: float, chunk_bytes: int
) -> None:
    monkeypatch.setattr(statistics, "_CHUNK_BYTES", chunk_bytes)
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(300, 4)) + offset).astype(np.float32)
    X[:, 3] = offset
    y = rng.normal(size=(300, 2)) + offset
    weight = rng.random(300) + 0.01
    parts = [measure(rows_of(X[a:b], y[a:b], weight[a:b], kind)) for a, b in ((0, 7), (7, 300))]
    none = measure(rows_of(X[:0], y[:0], weight[:0], kind))
    found = combine([none, parts[0], none, parts[1], none], 4)
    assert_moments(found, X, y, weight)
    assert found.deviation[3] == 0


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("window", [100, 1 << 26])
def test_of_entries(monkeypatch: pytest.MonkeyPatch, offset: float, window: int) -> None:
    monkeypatch.setattr(batches, "WINDOW_BYTES", window)
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(300, 9)) + offset) * (rng.random((300, 9)) < 0.3)
    X[:, 3], X[:, 4] = offset + rng.normal(size=300), 0
    X = X.astype(np.float32)
    y, weight = rng.normal(size=(300, 2)), rng.random(300) + 0.01
    parts = [
        measure(CsrRows(X[a:b], y[a:b], weight[a:b]), sparse=True)
        for a, b in ((0, 0), (0, 7), (7, 7), (7, 300))
    ]
    found = combine(parts, 9)
    assert_moments(found, X, y, weight)
    assert found.filled is not None
    np.testing.assert_allclose(found.filled, np.average(X != 0, axis=0, weights=weight))


def test_one_row() -> None:
    X, y = np.array([[3.0, -1.0]], np.float32), np.array([2.0])
    found = combine([measure(ArrayRows(X, y, np.array([0.5])))], 2)
    assert_moments(found, X, y, np.array([0.5]))


@pytest.mark.parametrize("sparse", [True, False])
def test_over_workers_some_of_them_without_rows(spark: SparkSession, sparse: bool) -> None:
    X, y = blobs(6, d=30)
    X[np.random.default_rng(0).random(X.shape) < 0.95] = 0
    weight = np.array([1.0, 2, 0, 0.5, 1, 1])
    df = vectors(spark, X, y, sizes=[2, 4], weight=weight, sparse=lambda row: sparse)
    with open_engine(df, spec(n_workers=8, weight="weight")) as engine:
        assert 0 in engine.info.rows_per_worker
        found = engine.statistics()
        kept = weight > 0
        assert_moments(found, X[kept], y[kept], weight[kept])
        assert engine.statistics() is found
