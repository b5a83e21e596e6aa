"""A row's prediction is the network's and independent of other rows, with numpy alone."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknn.core import forward, row_blocks
from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor
from sparknn.core.row_blocks import BLOCK_ROWS

FORWARD: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda Z: np.where(Z > 0, Z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda Z: 1 / (1 + np.exp(-Z)),
    "gelu": lambda Z: 0.5 * Z * (1 + np.tanh(np.sqrt(2 / np.pi) * (Z + 0.044715 * Z**3))),
    "identity": lambda Z: Z,
}


def oracle(predictor: LocalPredictor, X: np.ndarray) -> np.ndarray:
    """The forward pass in float64, from the formula."""
    A, start = X.astype(np.float64), 0
    theta, layers = predictor.theta.astype(np.float64), predictor.network.layers
    for layer, (n_in, n_out) in enumerate(pairwise(layers)):
        W = theta[start : start + n_in * n_out].reshape(n_in, n_out)
        b = theta[start + n_in * n_out : start + (n_in + 1) * n_out]
        start += (n_in + 1) * n_out
        A = A @ W + b
        if layer < len(layers) - 2:
            A = FORWARD[predictor.network.activation](A)
    return A


def make(*layers: int, activation: str = "relu", loss: str = "crossEntropy") -> LocalPredictor:
    network = Network(layers, activation, loss)
    theta = np.random.default_rng(5).normal(scale=0.5, size=network.n_params).astype(np.float32)
    return LocalPredictor(network, theta)


def rows(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(6).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [(5, 3), (5, 1, 2), (4, 7, 6, 3)])
def test_it_is_the_formula(activation: str, layers: tuple[int, ...]) -> None:
    predictor, X = make(*layers, activation=activation), rows(300, layers[0])
    raw = oracle(predictor, X)
    np.testing.assert_allclose(predictor.predict_raw(X), raw, rtol=1e-4, atol=1e-5)
    P = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor.predict_proba(X), P, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(predictor.predict(X), predictor.predict_raw(X).argmax(axis=1))


def test_probabilities_sum_to_one_in_float64() -> None:
    P = make(6, 20, 11).predict_proba(100 * rows(500, 6))
    assert P.dtype == np.float64
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=1e-15)


@pytest.mark.parametrize("layers", [(33, 20, 10), (7, 5, 1), (3, 2), (130, 64, 32, 2)])
@given(picked=st.lists(st.integers(0, 499), min_size=1, max_size=3 * BLOCK_ROWS))
@settings(max_examples=25)
def test_a_row_does_not_depend_on_its_neighbours(
    layers: tuple[int, ...], picked: list[int]
) -> None:
    loss = "squared" if layers[-1] == 1 else "crossEntropy"
    predictor, X = make(*layers, loss=loss), rows(500, layers[0])
    every = predictor.predict_raw(X)
    assert predictor.predict_raw(X[picked]).tobytes() == every[picked].tobytes()


# Rows alone, at different positions of a block, and among others.
POSITIONS = """
import numpy as np
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor
from sparknn.core.row_blocks import block_rows

rng = np.random.default_rng(0)
for layers in [(33, 20, 10), (7, 5, 1), (3, 2), (1, 1), (130, 64, 32, 2), (784, 300, 10)]:
    network = Network(layers)
    predictor = LocalPredictor(network, network.init(rng))
    X = rng.normal(size=(300, layers[0])).astype(np.float32)
    every = predictor.outputs(X)
    order = rng.permutation(300)
    assert predictor.outputs(X[order]).tobytes() == every[order].tobytes(), layers
    for i in (0, 7, 130, 299):
        assert predictor.outputs(X[i : i + 1]).tobytes() == every[i].tobytes(), layers
    print(block_rows(layers))
"""


@pytest.mark.parametrize("kernels", ["Nehalem", "Haswell"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_its_neighbours_on_other_processors(
    kernels: str, threads: int
) -> None:
    """OpenBLAS's kernels for Haswell, also used on AMD's Zen, treat rows of a block differently."""
    env = {**os.environ, "OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", POSITIONS], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 6


@pytest.mark.parametrize("n_alike", [128, 16, 8, 4, 1, 0])
def test_blocks_are_as_large_as_positions_do_not_matter(
    n_alike: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        row_blocks, "_is_position_free", lambda n_rows, n_in, n_out: n_rows <= n_alike
    )
    n_block = row_blocks.block_rows.__wrapped__((9, 8, 4))
    assert n_block == max(n_alike, 1)
    monkeypatch.setattr(forward, "block_rows", lambda layers: n_block)
    seen = []
    logits = Network.logits
    monkeypatch.setattr(
        Network, "logits", lambda self, theta, X: (seen.append(X.shape), logits(self, theta, X))[1]
    )
    predictor, X = make(9, 8, 4), rows(300, 9)
    np.testing.assert_allclose(predictor.predict_raw(X), oracle(predictor, X), rtol=1e-4, atol=1e-5)
    assert {shape[1:] for shape in seen} == {(n_block, 9)}
    assert sum(shape[0] for shape in seen) == -(-300 // n_block)


def test_a_product_that_treats_rows_differently_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(np.ndarray):
        """Rounds the sixth row of a product differently."""

        def __matmul__(self, other: np.ndarray) -> np.ndarray:
            Z = np.asarray(self) @ other
            Z[5:6] = np.nextafter(Z[5:6], np.float32(np.inf))
            return Z

    assert row_blocks._is_position_free(1, 9, 4)
    monkeypatch.setattr(
        row_blocks.np,
        "tile",
        lambda row, reps: np.broadcast_to(row, (reps[0], len(row))).view(Elsewhere),
    )
    assert row_blocks._is_position_free(4, 9, 4)
    assert not row_blocks._is_position_free(8, 9, 4)


def test_layout_and_type_of_the_rows_do_not_matter() -> None:
    predictor, X = make(9, 8, 4), np.rint(10 * rows(200, 9))
    every = predictor.predict_raw(X).tobytes()
    for other in (np.asfortranarray(X), X.astype(np.int16), X.astype(np.float64), X.tolist()):
        assert predictor.predict_raw(other).tobytes() == every
    assert predictor.predict_raw(np.repeat(X, 2, axis=0)[::2]).tobytes() == every


def test_no_rows() -> None:
    predictor = make(4, 3)
    assert predictor.predict_raw(np.empty((0, 4))).shape == (0, 3)
    assert predictor.predict_proba(np.empty((0, 4))).shape == (0, 3)
    assert predictor.predict(np.empty((0, 4))).shape == (0,)


def test_one_target_is_a_vector_and_several_are_a_matrix() -> None:
    X = rows(3, 4)
    one, several = make(4, 5, 1, loss="squared"), make(4, 5, 2, loss="huber")
    assert one.predict(X).shape == (3,)
    np.testing.assert_array_equal(several.predict(X), several.predict_raw(X))
    with pytest.raises(ValueError, match=r"no probabilities\. Use predict"):
        several.predict_proba(X)


def spark_rule(p: np.ndarray, thresholds: tuple[float, ...]) -> float:
    """ProbabilisticClassificationModel.probability2prediction, from its documentation."""
    best, largest = 0, -np.inf
    for i, threshold in enumerate(thresholds):
        zero = np.inf if p[i] > 0 else np.nan
        scaled = zero if threshold == 0 else p[i] / threshold
        if scaled > largest:
            best, largest = i, scaled
    return float(best)


@pytest.mark.parametrize(
    "thresholds", [(1.0, 1.0, 1.0), (0.1, 0.8, 0.5), (0.0, 1.0, 1.0), (1.0, 1e-9, 1e9)]
)
def test_thresholds_as_spark(thresholds: tuple[float, ...]) -> None:
    plain = make(4, 6, 3)
    predictor = LocalPredictor(plain.network, plain.theta, thresholds)
    X = 3 * rows(200, 4)
    expected = [spark_rule(p, thresholds) for p in predictor.predict_proba(X)]
    assert predictor.predict(X).tolist() == expected


def test_a_threshold_of_zero_never_predicts_a_probability_of_zero() -> None:
    predictor = make(2, 3)
    predictor = LocalPredictor(predictor.network, predictor.theta, (0.0, 1.0, 1.0))
    raw = np.array([[-1000.0, 0.0, 1.0], [-10.0, 0.0, 1.0]])
    assert predictor.decide(raw).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite(value: float) -> None:
    predictor, X = make(4, 6, 3), rows(300, 4).astype(np.float64)
    X[[7, 250], 2] = value
    with pytest.raises(ValueError, match=r"in 2 of 300 rows \(the first is row 7\)"):
        predictor.predict(X)
    raw = predictor.outputs(X)
    assert np.flatnonzero(np.isnan(raw).all(axis=1)).tolist() == [7, 250]
    others = np.delete(np.arange(300), [7, 250])
    assert raw[others].tobytes() == predictor.predict_raw(X[others]).tobytes()


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((3, 5)), r"shape \(3, 5\); expected \(n, 4\)"),
        (np.zeros(4), r"Use X.reshape\(1, -1\) for one row"),
        (np.zeros((1, 1, 4)), r"shape \(1, 1, 4\)"),
        ([["a", "b", "c", "d"]], "dtype <U1; expected numbers"),
    ],
)
def test_rows_of_another_shape(X: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(4, 3).predict(X)  # type: ignore[arg-type]


def test_it_pickles_to_four_bytes_per_parameter() -> None:
    predictor = make(784, 300, 10)
    predictor = LocalPredictor(predictor.network, predictor.theta, tuple([0.1] * 10))
    data = pickle.dumps(predictor)
    assert len(data) < 4 * predictor.network.n_params + 1000
    again, X = pickle.loads(data), rows(5, 784)
    assert again.thresholds == predictor.thresholds
    assert again.predict_raw(X).tobytes() == predictor.predict_raw(X).tobytes()


def test_it_works_where_pyspark_is_absent(run_python: Callable[..., object], tmp_path) -> None:  # type: ignore[no-untyped-def]
    predictor, X = make(4, 6, 3), rows(10, 4)
    file = tmp_path / "predictor.pickle"
    file.write_bytes(pickle.dumps((predictor, X, predictor.predict_proba(X))))
    run_python(
        "import pickle, sys\n"
        "for name in ('pyspark', 'py4j', 'pandas', 'pyarrow'): sys.modules[name] = None\n"
        "predictor, X, P = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert predictor.predict_proba(X).tobytes() == P.tobytes()\n"
        "assert predictor.predict(X).tolist() == P.argmax(axis=1).tolist()\n",
        str(file),
    )
