"""Predictions from sparse rows: against loops, and the same however a row comes."""

import pickle

import numpy as np
import pytest
from toys import Array

from sparknn.core import forward as module
from sparknn.core.entries import Entries
from sparknn.core.nn.input_layer import LEAST_SPARSE
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor

sparse = pytest.importorskip("scipy.sparse")

D = LEAST_SPARSE + 3
NETWORK = Network((D, 6, 3))


def some_rows(n: int = 300, seed: int = 0) -> Array:
    """Rows of a few entries; some have none, some have most."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) * (rng.random((n, D)) < 0.02)
    X[::50] = rng.normal(size=(len(X[::50]), D))
    X[7::50] = 0
    return X.astype(np.float32)


def predictor_of(network: Network = NETWORK) -> LocalPredictor:
    rng = np.random.default_rng(3)
    return LocalPredictor(network, rng.normal(size=network.n_params).astype(np.float32))


def by_loops(local: LocalPredictor, row: Array) -> Array:
    """Z of the first layer, a unit at a time."""
    W, b, _ = local.network.blocks(local.theta)[0]
    columns = np.flatnonzero(row)
    Z = np.zeros_like(b)
    for unit in range(len(Z)):
        terms = np.array([row[column] * W[column, unit] for column in columns], np.float32)
        if len(terms):
            # What numpy's `reduceat` does.
            Z[unit] = terms[0] + np.add.reduce(terms[1:])
    return Z + b


def test_the_first_layer_has_the_bytes_of_loops() -> None:
    local = predictor_of(Network((D, 5)))
    X = some_rows()
    few = np.count_nonzero(X, axis=1) < 100
    expected = [by_loops(local, row) for row in X[few]]
    assert np.array_equal(local.predict_raw(X[few]), np.array(expected, np.float64))
    # Sums of small whole numbers are exact in any order.
    whole = np.rint(X[few])
    local = LocalPredictor(local.network, np.rint(local.theta))
    W, b, _ = local.network.blocks(local.theta)[0]
    assert np.array_equal(local.predict_raw(whole), whole @ W + b)


@pytest.mark.parametrize("hidden", [(), (6,), (6, 4)], ids=str)
def test_the_same_bytes_however_rows_come(hidden: tuple[int, ...]) -> None:
    local = predictor_of(Network((D, *hidden, 3)))
    X = some_rows()
    expected = local.predict_raw(X)
    assert np.array_equal(local.predict_raw(sparse.csr_matrix(X)), expected)
    assert np.array_equal(local.predict_raw(sparse.coo_matrix(X.astype(np.float64))), expected)
    assert np.array_equal(local.predict_raw(sparse.csr_array(X)), expected)
    assert np.array_equal(np.vstack([local.predict_raw(row[None]) for row in X]), expected)
    order = np.random.default_rng(1).permutation(len(X))
    assert np.array_equal(local.predict_raw(X[order]), expected[order])
    assert np.array_equal(pickle.loads(pickle.dumps(local)).predict_raw(X), expected)
    logits = local.network.logits(local.theta, X)
    np.testing.assert_allclose(expected, logits, rtol=1e-3, atol=1e-3)


def test_few_entries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    local, X = predictor_of(), some_rows()
    expected = local.predict_raw(X)
    monkeypatch.setattr(module, "_ENTRIES", 10)
    assert np.array_equal(local.predict_raw(X), expected)


def test_order_of_columns_and_explicit_zeros_do_not_matter() -> None:
    local, X = predictor_of(), some_rows()
    expected = local.predict_raw(X)
    matrix = sparse.csr_matrix(X)
    for row in range(0, len(X), 3):
        mine = slice(matrix.indptr[row], matrix.indptr[row + 1])
        matrix.indices[mine], matrix.data[mine] = (
            matrix.indices[mine][::-1],
            matrix.data[mine][::-1],
        )
    matrix.has_sorted_indices = False
    assert np.array_equal(local.predict_raw(matrix), expected)
    padded = sparse.csr_matrix(X)
    padded.data[::2] = 0
    assert np.array_equal(local.predict_raw(padded), local.predict_raw(padded.toarray()))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_rows_that_are_not_finite(value: float) -> None:
    local, X = predictor_of(), some_rows(10).astype(np.float64)
    X[4, 8] = value
    entries = Entries.of(X)
    outputs = local.outputs_of(entries)
    assert np.isnan(outputs[4]).all()
    assert np.array_equal(np.isnan(outputs[:, 0]), np.arange(10) == 4)
    with pytest.raises(ValueError, match=r"in 1 of 10 rows \(the first is row 4\)"):
        local.predict_raw(sparse.csr_matrix(X))


def test_sparse_matrices_of_few_columns() -> None:
    local = predictor_of(Network((40, 6, 3)))
    X = some_rows()[:, :40]
    assert np.array_equal(local.predict_raw(sparse.csr_matrix(X)), local.predict_raw(X))


def test_a_matrix_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\); expected \(n, 2051\)"):
        predictor_of().predict(sparse.csr_matrix((2, 5)))
    with pytest.raises(ValueError, match="dtype complex"):
        predictor_of().predict(sparse.csr_matrix((2, D), dtype=complex))


def test_no_rows() -> None:
    assert predictor_of().predict_raw(sparse.csr_matrix((0, D))).shape == (0, 3)


@pytest.mark.parametrize("d", [5, D])
def test_offsets_leave_rows_the_same_however_they_come(d: int) -> None:
    """Also where a row has no entry, and so is 0, in a column that has an offset."""
    rng = np.random.default_rng(0)
    network = Network((d, 6, 2), loss="squared")
    offset = np.zeros(d)
    offset[[1, d - 1]] = 1e12, -3e9
    X = rng.normal(size=(150, d)) * (rng.random((150, d)) < 5 / d) + offset
    X[::3, 1] = X[::2, d - 1] = 0
    X[4] = 0
    plain = predictor_of(network)
    local = LocalPredictor(network, plain.theta, input_offset=offset)
    expected = plain.predict((X - offset).astype(np.float32))
    assert np.array_equal(local.predict(X), expected)
    assert np.array_equal(local.predict(sparse.csr_matrix(X)), expected)
    assert np.array_equal(local.predict_raw_of(Entries.of(X)), expected)
