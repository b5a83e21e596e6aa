"""The input layer: sparse rows against loops and against the dense layer."""

from itertools import pairwise

import numpy as np
import pytest
from toys import Array, central_differences

from sparknn.core.entries import Entries
from sparknn.core.nn import input_layer
from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.input_layer import FixedRows, InputLayer, SparseBatch
from sparknn.core.nn.losses import LOSSES
from sparknn.core.nn.network import Backprop, Network
from sparknn.core.nn.row_solvers import TrainedRows, rule_of
from sparknn.core.nn.solvers import SOLVERS


def some_entries(n: int, d: int, nnz: int, seed: int = 0) -> Entries:
    """Rows of up to ``nnz`` whole numbers: sums of their products are exact in any order."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(nnz + 1, size=n)
    columns = [rng.choice(d, size=count, replace=False) for count in counts]
    values = rng.integers(-3, 4, size=counts.sum()).astype(np.float32)
    return Entries(values, np.concatenate(columns).astype(np.int32), counts)


def dense(entries: Entries, d: int) -> Array:
    X = np.zeros((len(entries.counts), d), dtype=entries.values.dtype)
    ends = np.cumsum(entries.counts)
    for row, (stop, count) in enumerate(zip(ends, entries.counts, strict=True)):
        for i in range(stop - count, stop):
            X[row, entries.columns[i]] += entries.values[i]
    return X


def by_loops(entries: Entries, W: Array, dZ: Array) -> tuple[Array, Array]:
    """What rows add to Z, and the gradient for W, an entry at a time."""
    Z, dW = np.zeros((len(entries.counts), W.shape[1]), W.dtype), np.zeros_like(W)
    ends = np.concatenate([[0], np.cumsum(entries.counts)])
    for row, (start, stop) in enumerate(pairwise(ends)):
        for i in range(start, stop):
            Z[row] += entries.values[i] * W[entries.columns[i]]
            dW[entries.columns[i]] += entries.values[i] * dZ[row]
    return Z, dW


def check_against_loops(entries: Entries, d: int, h: int = 3) -> SparseBatch:
    rng = np.random.default_rng(5)
    W = rng.integers(-8, 9, size=(d, h)).astype(np.float32)
    dZ = rng.integers(-8, 9, size=(len(entries.counts), h)).astype(np.float32)
    expected_Z, expected_dW = by_loops(entries, W, dZ)
    batch = SparseBatch.of(entries)
    Z = np.zeros_like(dZ)
    FixedRows(batch, W).add_to(Z)
    dW = np.zeros_like(W)
    touched = np.full((len(batch.columns), h), np.nan, np.float32)
    batch.gradient(dZ, touched)
    dW[batch.columns] = touched
    assert Z.tobytes() == expected_Z.tobytes()
    assert dW.tobytes() == expected_dW.tobytes()
    assert (np.diff(batch.columns) > 0).all()
    assert np.array_equal(batch.columns, np.unique(entries.columns))
    return batch


@pytest.mark.parametrize(("n", "d", "nnz"), [(1, 5, 3), (7, 20, 6), (64, 1 << 14, 80), (9, 4, 4)])
def test_same_bytes_as_loops(n: int, d: int, nnz: int) -> None:
    assert len(check_against_loops(some_entries(n, d, nnz), d).parts) == 1


@pytest.mark.parametrize(("n", "d", "nnz"), [(300, 500, 4), (130, 1 << 16, 200), (3, 30000, 20000)])
def test_same_bytes_as_loops_in_several_parts(n: int, d: int, nnz: int) -> None:
    assert len(check_against_loops(some_entries(n, d, nnz), d).parts) > 1


def test_a_part_is_small_however_large_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_layer, "_MOST_ENTRIES", 10)
    batch = check_against_loops(some_entries(40, 50, 6), 50)
    assert max(len(part.X.T) for part in batch.parts) <= 10
    assert sum(part.stop - part.start for part in batch.parts) == 40


def test_empty_rows_and_no_rows() -> None:
    nothing = Entries(np.empty(0, np.float32), np.empty(0, np.int32), np.zeros(3, np.int64))
    batch = check_against_loops(nothing, 4)
    assert batch.columns.size == 0
    none = nothing._replace(counts=np.zeros(0, np.int64))
    assert SparseBatch.of(none).columns.size == 0


def test_explicit_zeros_touch_and_repeated_columns_add_up() -> None:
    entries = Entries(
        np.array([1, 2, 0, 4, -4], np.float32),
        np.array([3, 3, 1, 0, 0], np.int32),
        np.array([3, 2]),
    )
    batch = check_against_loops(entries, 5)
    assert batch.columns.tolist() == [0, 1, 3]


def test_rows_that_touch_every_column() -> None:
    check_against_loops(
        Entries(np.ones(12, np.float32), np.tile(np.arange(4, dtype=np.int32), 3), np.full(3, 4)), 4
    )


def test_shifted_columns_are_touched_by_every_row() -> None:
    entries = some_entries(5, 9, 3)
    always, shift = np.array([2, 7]), np.array([2.0, -1.0], np.float32)
    batch = SparseBatch.of(entries, always, shift)
    assert set(always) <= set(batch.columns)
    X = dense(entries, 9)
    X[:, always] -= shift
    Z = np.zeros((5, 9), np.float32)
    batch.add_to(Z, np.eye(9, dtype=np.float32)[batch.columns])
    assert np.array_equal(Z, X)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)], ids=str)
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradient_by_central_differences(
    activation: str, loss: str, hidden: tuple[int, ...]
) -> None:
    n, d, k = 6, 8, 3
    network = Network((d, *hidden, k), activation, loss)
    layer = InputLayer(network, d)
    rng = np.random.default_rng(1)
    theta = rng.normal(size=network.n_params) * 0.7
    entries = some_entries(n, d, 4)
    entries = entries._replace(values=rng.normal(size=len(entries.values)))
    y = rng.integers(k, size=n) if network.loss_fn.classifies else rng.normal(size=(n, k))
    weight = rng.uniform(0.2, 3, size=n)
    batch = SparseBatch.of(entries)

    def loss_of(theta: Array) -> float:
        W, others = layer.split(theta)
        logits = layer.dense.logits(others, np.empty((n, 0)), FixedRows(batch, W))
        return float(np.dot(network.loss_fn.values(logits, y), weight))

    W, others = layer.split(theta)
    rows = TrainedRows(W.copy(), rule_of(SOLVERS["sgd"], W.shape, W.dtype, 0.0, 0.0))
    rows.start(batch)
    got_W, got_others = np.zeros_like(W), np.full_like(others, np.nan)
    passes = Backprop(layer.dense, n, dtype=np.float64)
    loss_sum = passes.gradient(
        layer.dense.blocks(others),
        np.empty((n, 0)),
        y,
        weight,
        layer.dense.blocks(got_others),
        inputs=rows,
    )
    got_W[batch.columns] = rows.gradient
    got = np.concatenate([got_W.reshape(-1), got_others])
    assert np.isclose(loss_sum, loss_of(theta))
    numeric = central_differences(loss_of, theta)
    np.testing.assert_allclose(got, numeric, rtol=1e-5, atol=1e-7)


def test_logits_are_those_of_the_dense_network() -> None:
    network = Network((30, 6, 3))
    theta = network.init(np.random.default_rng(0))
    layer = InputLayer(network, 30)
    W, others = layer.split(theta)
    entries = some_entries(10, 30, 8)
    got = layer.dense.logits(
        others, np.empty((10, 0), np.float32), FixedRows(SparseBatch.of(entries), W)
    )
    np.testing.assert_allclose(got, network.logits(theta, dense(entries, 30)), atol=1e-5)


def test_split_returns_views_of_all_parameters() -> None:
    network = Network((6, 4, 2))
    layer = InputLayer(network, 6)
    theta = np.arange(network.n_params, dtype=np.float32)
    W, others = layer.split(theta)
    assert np.shares_memory(W, theta)
    assert np.shares_memory(others, theta)
    assert np.array_equal(W, network.blocks(theta)[0].W)
    assert others.size == layer.dense.n_params
    assert np.array_equal(layer.dense.blocks(others)[0].b, network.blocks(theta)[0].b)
    whole = InputLayer(network, 0).split(theta)
    assert whole[0].size == 0
    assert whole[1] is not None
    assert np.array_equal(whole[1], theta)
