"""Rows in memory, dense and sparse: they are read and gathered unchanged."""

import numpy as np
import pytest
from toys import Array, CsrRows

from sparknn.core.data.rows import ArrayRows


def sparse_matrix(n: int = 30, d: int = 7) -> Array:
    """A matrix with two thirds zeros, an empty first, last and middle row, and a full one."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, d)) * (rng.random((n, d)) < 1 / 3)).astype(np.float32)
    X[[0, 11, -1]] = 0
    X[5] = 1
    return X


@pytest.mark.parametrize(
    "index", [[], [0], [29], [0, 11, 29], [5, 5, 3], list(range(29, -1, -1))], ids=str
)
def test_sparse_rows_are_the_dense_ones(index: list[int]) -> None:
    X = sparse_matrix()
    y, sample_weight = np.arange(30.0), np.linspace(0, 1, 30)
    picked = np.array(index, dtype=np.intp)
    dense, sparse = (np.full((len(index), 7), np.nan, np.float32) for _ in range(2))
    ArrayRows(X, y, sample_weight).read(0, 30).take(picked, dense)
    CsrRows(X, y, sample_weight).read(0, 30).take(picked, sparse)
    np.testing.assert_array_equal(dense, X[picked])
    np.testing.assert_array_equal(sparse, X[picked])


@pytest.mark.parametrize("kind", [ArrayRows, CsrRows])
def test_a_slice_counts_from_its_start(kind: type[ArrayRows] | type[CsrRows]) -> None:
    X, y, sample_weight = sparse_matrix(), np.arange(30.0), np.linspace(0, 1, 30)
    chunk = kind(X, y, sample_weight).read(10, 20)
    out = np.empty((2, 7), np.float32)
    chunk.take(np.array([0, 9]), out)
    np.testing.assert_array_equal(out, X[[10, 19]])
    np.testing.assert_array_equal(chunk.y, y[10:20])
    np.testing.assert_array_equal(chunk.sample_weight, sample_weight[10:20])


def test_rows_weigh_1_by_default() -> None:
    chunk = ArrayRows(sparse_matrix(), np.zeros(30)).read(3, 8)
    np.testing.assert_array_equal(chunk.sample_weight, np.ones(5))
