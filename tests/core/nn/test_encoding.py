"""Encodings of table rows: against plain loops, at the edges, and through a first layer."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from encoded import INF, PLAIN, encoding_of, mixed, rows_of_mixed
from toys import Array, central_differences

from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.encoding import Encoder, Encoding
from sparknn.core.nn.input_layer import FixedRows, InputLayer, SparseBatch
from sparknn.core.nn.losses import LOSSES
from sparknn.core.nn.network import Backprop, Network
from sparknn.core.nn.row_solvers import TrainedRows, rule_of
from sparknn.core.nn.solvers import SOLVERS


def by_loops(encoding: Encoding, X: Array) -> Array:
    """The dense inputs, a number at a time, in float64."""
    rows = []
    for x in X.astype(np.float64):
        inputs: list[float] = []
        for i, feature in enumerate(encoding.feature):
            value = x[feature]
            if np.isnan(value) and encoding.fill is not None:
                value = float(encoding.fill[feature])
            value = (value - float(encoding.start[i])) * float(encoding.slope[i])
            if not np.isnan(value):
                value = min(max(value, float(encoding.low[i])), float(encoding.high[i]))
            inputs.append(value)
        inputs += [float(np.isnan(x[feature])) for feature in encoding.missing]
        for feature, n_values in encoding.onehot:
            inputs += [float(x[feature] == value) for value in range(n_values)]
        rows.append(inputs)
    return np.array(rows).reshape(len(X), encoding.n_dense)


def encode(
    encoding: Encoding, X: Array, shift: Array | None = None, factor: Array | None = None
) -> Array:
    out = np.full((len(X) + 3, encoding.n_dense), np.nan, dtype=np.float32)
    return Encoder(encoding, shift, factor).encode(np.asarray(X, dtype=np.float32), out)


def check_against_loops(encoding: Encoding, X: Array) -> Array:
    X = np.asarray(X, dtype=np.float32)
    got = encode(encoding, X)
    assert got.shape == (len(X), encoding.n_dense)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_loops(encoding, X), rtol=1e-6, atol=1e-6)
    return got


def cut(*edges: float) -> Encoding:
    """One number in the pieces between knots."""
    pieces = [(0, a, 1 / (b - a), 0.0, 1.0) for a, b in pairwise(edges)]
    return encoding_of(1, pieces)


def test_as_loops() -> None:
    check_against_loops(mixed(), rows_of_mixed(50))


def test_no_rows_and_one_row() -> None:
    for n in (0, 1):
        check_against_loops(mixed(), rows_of_mixed(n))


def test_at_a_knot_pieces_before_are_full_and_pieces_after_are_empty() -> None:
    got = check_against_loops(cut(0, 1, 3, 7), [[0.0], [1.0], [3.0], [7.0]])
    assert got.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_between_knots_a_piece_is_partly_full() -> None:
    assert check_against_loops(cut(0, 1, 3, 7), [[2.5], [4.0]]).tolist() == [
        [1, 0.75, 0],
        [1, 1, 0.25],
    ]


def test_outside_the_knots_pieces_are_bounded() -> None:
    far = [[-1e30], [-0.001], [7.001], [1e30]]
    got = check_against_loops(cut(0, 1, 3, 7), far)
    assert got.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_one_piece_and_narrow_pieces() -> None:
    check_against_loops(cut(2, 5), [[1], [2], [3.5], [5], [9]])
    edges = np.float32(1) + np.arange(4, dtype=np.float32) * np.spacing(np.float32(1))
    got = check_against_loops(cut(*edges.astype(float)), edges[:, None])
    assert got.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_missing_number_is_filled_and_flagged() -> None:
    encoding = mixed()
    got = check_against_loops(encoding, [[np.nan, 0, 1, 0, 0], [0.25, 0, np.nan, 0, 0]])
    assert np.array_equal(got[0, :4], got[1, :4])
    assert got[1, 4] == 7
    assert got[:, 5:7].tolist() == [[1, 0], [0, 1]]


def test_without_a_fill_a_missing_number_stays_missing() -> None:
    got = check_against_loops(cut(0, 1, 2), [[np.nan], [1.0]])
    assert np.isnan(got[0]).all()
    assert not np.isnan(got[1]).any()


@pytest.mark.parametrize("value", [-1.0, 70.0, 1.5, 1e30, -INF, INF, np.nan, 2.0**31])
def test_what_is_no_value_of_a_category_adds_nothing(value: float) -> None:
    encoding = mixed()
    X = np.array([[0, value, 0, value, value]], dtype=np.float32)
    assert not encode(encoding, X)[0, 7:].any()
    assert encoding.entries(X).counts.tolist() == [0]
    _, known = encoding.rows_of_weights(X)
    assert not known.any()
    assert encoding.valid(X).tolist() == [True]


def test_rows_of_weights_are_numbered_one_category_after_the_other() -> None:
    encoding = mixed()
    X = np.zeros((4, 5), dtype=np.float32)
    X[:, 3], X[:, 4] = [0, 69, 70, np.nan], [1, 0, 1, 0.5]
    numbers, known = encoding.rows_of_weights(X)
    assert known.tolist() == [[True, True], [True, True], [False, True], [False, False]]
    assert numbers[known].tolist() == [0, 71, 69, 70, 71]
    entries = encoding.entries(X)
    assert entries.columns.tolist() == [0, 71, 69, 70, 71]
    assert entries.counts.tolist() == [2, 2, 1, 0]
    assert entries.values.tolist() == [1] * 5
    assert encoding.n_embedded == 72
    assert -0.0 in X
    assert encoding.rows_of_weights(-X * 0)[0][0].tolist() == [0, 70]


def test_valid_rows() -> None:
    plain = encoding_of(3, [(0, *PLAIN), (1, *PLAIN)], onehot=[(2, 2)])
    X = np.zeros((5, 3), dtype=np.float32)
    X[1, 0], X[2, 1], X[3, 2], X[4, 0] = np.nan, INF, np.nan, -INF
    assert plain.valid(X).tolist() == [True, False, False, True, False]
    filled = encoding_of(3, [(0, *PLAIN), (1, *PLAIN)], onehot=[(2, 2)], fill=[1, 2, 0])
    assert filled.valid(X).tolist() == [True, True, False, True, False]


def test_counts() -> None:
    encoding = mixed()
    assert encoding.n_dense == 5 + 2 + 3
    assert encoding.has_pieces
    assert encoding.changes
    assert encoding.categories.tolist() == [1, 3, 4]
    plain = encoding_of(2, [(0, *PLAIN), (1, *PLAIN)])
    assert not plain.has_pieces
    assert not plain.changes
    assert encoding_of(2, [(0, *PLAIN), (1, *PLAIN)], fill=[0, 0]).changes
    assert encoding_of(2, [(0, *PLAIN)], onehot=[(1, 2)]).changes


def test_categories_alone() -> None:
    only_embedded = encoding_of(2, [], embedded=[(0, 5), (1, 4)])
    X = np.array([[1, 2], [9, 3]], dtype=np.float32)
    assert encode(only_embedded, X).shape == (2, 0)
    assert only_embedded.entries(X).columns.tolist() == [1, 7, 8]
    only_onehot = encoding_of(2, [], onehot=[(1, 4)])
    assert check_against_loops(only_onehot, X).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_standardised_encoding_is_the_encoding_standardised() -> None:
    encoding, X = mixed(), rows_of_mixed(60)
    rng = np.random.default_rng(4)
    shift = rng.normal(size=encoding.n_dense).astype(np.float32)
    factor = rng.uniform(0.1, 5, size=encoding.n_dense).astype(np.float32)
    factor[[1, 4, 6, 8]] = 0
    expected = (by_loops(encoding, X) - shift.astype(np.float64)) * factor
    np.testing.assert_allclose(encode(encoding, X, shift, factor), expected, rtol=1e-5, atol=2e-5)


def test_large_plain_numbers_keep_their_digits() -> None:
    x = np.float32(2**24 - 100) + np.arange(100, dtype=np.float32)
    encoding = encoding_of(1, [(0, *PLAIN)])
    exact = x.astype(np.float64)
    shift, factor = np.array([exact.mean()]), np.array([1 / exact.std()])
    got = encode(encoding, x[:, None], shift, factor)[:, 0]
    rounded = np.float64(np.float32(shift[0]))
    np.testing.assert_allclose(got, (exact - rounded) * factor[0], rtol=1e-6, atol=1e-7)
    assert len(np.unique(got)) == 100


def test_the_rows_are_not_changed_and_the_result_is_in_out() -> None:
    encoding, X = mixed(), rows_of_mixed(20)
    before = X.copy()
    out = np.empty((32, encoding.n_dense), dtype=np.float32)
    got = Encoder(encoding).encode(X, out)
    assert X.tobytes() == before.tobytes()
    assert np.shares_memory(got, out)
    again = Encoder(encoding).encode(np.asfortranarray(X.astype(np.float64)), out.copy())
    assert again.tobytes() == got.tobytes()


def test_json_round_trip() -> None:
    for encoding in (mixed(), cut(0, 1, 2), encoding_of(1, [], embedded=[(0, 3)])):
        again = Encoding.from_json(json.loads(json.dumps(encoding.to_json())))
        X = rows_of_mixed(30)[:, : encoding.n_features]
        assert encode(again, X).tobytes() == encode(encoding, X).tobytes()
        for name, value in vars(encoding).items():
            other = getattr(again, name)
            if isinstance(value, np.ndarray):
                assert (value.dtype, value.shape) == (other.dtype, other.shape), name
                assert value.tobytes() == other.tobytes(), name
            else:
                assert value == other


@pytest.mark.parametrize(
    "damage",
    [
        {"feature": [0, 0, 0, 0, 5]},
        {"feature": [0, 0, 0, 0, -1]},
        {"feature": [0, 0]},
        {"start": [0.0]},
        {"slope": []},
        {"low": [0.0] * 6},
        {"fill": [0.0]},
        {"missing": [9]},
        {"onehot": [[1, 0]]},
        {"onehot": [[7, 3]]},
        {"onehot": [1, 2, 3]},
        {"embedded": [[3, -4]]},
        {"n_features": 2},
        {"n_features": "five"},
        {"start": ["a"] * 5},
        {"start": [[0.0]] * 5},
        {"slope": [float("nan")] * 5},
    ],
    ids=str,
)
def test_damaged_json(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Encoding.from_json(mixed().to_json() | damage)


def test_json_without_a_field() -> None:
    saved = mixed().to_json()
    for name in saved:
        with pytest.raises(KeyError):
            Encoding.from_json({key: value for key, value in saved.items() if key != name})


def first_layer(encoding: Encoding, X: Array) -> tuple[Array, SparseBatch]:
    """The inputs of rows in float64."""
    entries = encoding.entries(X)
    entries = entries._replace(values=entries.values.astype(np.float64))
    return np.ascontiguousarray(encode(encoding, X), dtype=np.float64), SparseBatch.of(entries)


@pytest.mark.parametrize("hidden", [(), (5, 4)], ids=str)
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradient_by_central_differences(
    activation: str, loss: str, hidden: tuple[int, ...]
) -> None:
    n, k = 7, 3
    encoding = encoding_of(
        3,
        [(0, -1.0, 1.0, 0.0, 1.0), (0, 0.0, 0.5, 0.0, 1.0), (0, 0.5, 0.25, -3.0, 3.0)],
        fill=[0.25, 0, 0],
        missing=[0],
        onehot=[(1, 2)],
        embedded=[(2, 4)],
    )
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.normal(size=n), rng.integers(3, size=n), rng.integers(5, size=n)])
    X[0, 0] = np.nan
    inputs, batch = first_layer(encoding, X.astype(np.float32))
    network = Network((encoding.n_embedded + encoding.n_dense, *hidden, k), activation, loss)
    layer = InputLayer(network, encoding.n_embedded)
    theta = rng.normal(size=network.n_params) * 0.7
    y = rng.integers(k, size=n) if network.loss_fn.classifies else rng.normal(size=(n, k))
    weight = rng.uniform(0.2, 3, size=n)

    def loss_of(theta: Array) -> float:
        W, others = layer.split(theta)
        logits = layer.dense.logits(others, inputs, FixedRows(batch, W))
        return float(np.dot(network.loss_fn.values(logits, y), weight))

    W, others = layer.split(theta)
    rows = TrainedRows(W.copy(), rule_of(SOLVERS["sgd"], W.shape, W.dtype, 0.0, 0.0))
    rows.start(batch)
    got_W, got_others = np.zeros_like(W), np.full_like(others, np.nan)
    loss_sum = Backprop(layer.dense, n, dtype=np.float64).gradient(
        layer.dense.blocks(others),
        inputs,
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


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_embedded_values_are_one_hot_inputs(activation: str) -> None:
    """The same first layer, whether weights are looked up or multiplied."""
    looked_up = encoding_of(3, [(0, *PLAIN)], onehot=[(1, 3)], embedded=[(2, 6)])
    multiplied = encoding_of(3, [(0, *PLAIN)], onehot=[(1, 3), (2, 6)])
    rng = np.random.default_rng(2)
    X = np.column_stack([rng.normal(size=20), rng.integers(4, size=20), rng.integers(8, size=20)])
    network = Network((10, 5, 3), activation)
    theta = rng.normal(size=network.n_params)
    layer = InputLayer(network, 6)
    W, others = layer.split(theta)
    inputs, batch = first_layer(looked_up, X)
    got = layer.dense.logits(others, inputs, FixedRows(batch, W))
    # The sparse block's weights come first, the one-hot inputs last.
    moved = theta.copy()
    blocks, own = network.blocks(moved)[0].W, network.blocks(theta)[0].W
    blocks[:4], blocks[4:] = own[6:], own[:6]
    expected = network.logits(moved, by_loops(multiplied, X.astype(np.float32)))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_a_function_of_pieces_is_piecewise_linear() -> None:
    """Weights of pieces are the rises between knots (Gorishniy et al. 2022, eq. 1)."""
    edges, values = [0.0, 1.0, 3.0, 7.0], [2.0, -1.0, 4.0, 4.5]
    x = np.linspace(-1, 8, 37)
    pieces = encode(cut(*edges), x[:, None])
    np.testing.assert_allclose(
        values[0] + pieces @ np.diff(values), np.interp(x, edges, values), atol=1e-5
    )
