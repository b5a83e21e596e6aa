"""Contributions are integrated gradients: against sums over the path, and laws that they obey."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from encoded import encoding_of, mixed, rows_of_mixed
from toys import Array

from sparknn.core.contributions import Explainer, importances, mean_inputs
from sparknn.core.forward import ForwardPass
from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.encoding import Encoder, Encoding
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor


def make(*layers: int, activation: str = "relu", encoding: Encoding | None = None) -> ForwardPass:
    if encoding is not None:
        layers = (encoding.n_embedded + encoding.n_dense, *layers)
    network = Network(layers, activation)
    theta = np.random.default_rng(5).normal(scale=0.5, size=network.n_params)
    return ForwardPass(network, theta.astype(np.float32), encoding, None)


def outputs(forward: ForwardPass, U: Array) -> Array:
    """Of rows of the network's inputs, in float64."""
    return forward.network.logits(forward.theta.astype(np.float64), U)


def by_differences(forward: ForwardPass, u: Array, baseline: Array, n: int = 4000) -> Array:
    """Integrated gradients of one row by input, shape (k, inputs): ``n`` points of the path."""
    path = baseline + (np.arange(n)[:, None] + 0.5) / n * (u - baseline)
    found, step = np.empty((forward.n_outputs, len(u))), 1e-6
    for j in range(len(u)):
        up, down = path.copy(), path.copy()
        up[:, j] += step
        down[:, j] -= step
        slope = (outputs(forward, up) - outputs(forward, down)) / (2 * step)
        found[:, j] = (u[j] - baseline[j]) * slope.mean(axis=0)
    return found


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("layers", "error"), [((4, 3), 1e-6), ((4, 9, 2), 3e-3), ((4, 9, 8, 2), 2e-2)]
)
def test_they_are_the_integral(activation: str, layers: tuple[int, ...], error: float) -> None:
    """In ``by_differences``, a point of 4,000 may be on the wrong side of a kink."""
    forward = make(*layers, activation=activation)
    rng = np.random.default_rng(1)
    X, baseline = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=4)
    found = Explainer(forward, baseline).contributions(X)
    expected = [by_differences(forward, row, baseline) for row in X.astype(np.float64)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=error)
    difference = outputs(forward, X) - outputs(forward, baseline[None])
    np.testing.assert_allclose(found.sum(axis=2), difference, rtol=0, atol=1e-6)


def test_more_intervals_come_closer() -> None:
    forward = make(5, 20, 20, 2)
    X, zero = np.random.default_rng(1).normal(size=(20, 5)), np.zeros(5)
    exact = Explainer(forward, zero, 4096).contributions(X)
    errors = [
        np.abs(Explainer(forward, zero, n).contributions(X) - exact).max() for n in (1, 8, 64)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize(
    "encoding",
    [
        mixed(),
        encoding_of(5, [], onehot=[(1, 4)]),
        encoding_of(5, [], embedded=[(4, 2), (3, 71)]),
    ],
    ids=["mixed", "one-hot alone", "embedded alone"],
)
def test_inputs_are_summed_to_their_features(encoding: Encoding) -> None:
    forward, X = make(9, 3, encoding=encoding), rows_of_mixed(200)
    # Every input, those of embedded categories too.
    out = np.empty((len(X), encoding.n_dense), dtype=np.float32)
    U = np.concatenate(
        [
            *(X[:, [which]] == np.arange(n) for which, n in encoding.embedded),
            Encoder(encoding).encode(X, out),
        ],
        axis=1,
    ).astype(np.float64)
    baseline = mean_inputs(forward, X)
    np.testing.assert_allclose(baseline, U.mean(axis=0), atol=1e-6)
    features = np.concatenate(
        [
            np.repeat(*encoding.embedded.T),
            encoding.feature,
            encoding.missing,
            np.repeat(*encoding.onehot.T),
        ]
    )
    plain = replace(forward, encoding=None)
    by_input = Explainer(plain, baseline).contributions(U)
    expected = np.zeros((len(X), 3, 5))
    np.add.at(expected, (slice(None), slice(None), features), by_input)
    found = Explainer(forward, baseline).contributions(X)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_importances_are_shares() -> None:
    forward, rng = make(4, 8, 3), np.random.default_rng(1)
    X = rng.normal(size=(300, 4)) * [1, 5, 1, 0]
    found = importances(Explainer(forward, np.zeros(4)), X)
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == 1
    assert found[3] == 0


def test_a_few_intervals_are_enough_for_importances() -> None:
    """``ml.explain`` takes 4."""
    forward, X = make(5, 20, 20, 2), np.random.default_rng(1).normal(size=(100, 5))
    few, many = (importances(Explainer(forward, np.zeros(5), n), X) for n in (4, 256))
    np.testing.assert_allclose(few, many, rtol=0.02)


def test_targets_count_alike_whatever_their_units() -> None:
    network = Network((2, 2), loss="squared")
    # The first target is the first feature, in millions; the second one is the second.
    forward = ForwardPass(network, np.float32([1e6, 0, 0, 1, 0, 0]), None, None)
    X = np.random.default_rng(1).normal(size=(300, 2))
    np.testing.assert_allclose(importances(Explainer(forward, np.zeros(2)), X), [0.5, 0.5])


def test_a_network_that_is_constant_has_no_importances() -> None:
    forward = replace(make(3, 4, 2), theta=np.zeros(26, dtype=np.float32))
    assert importances(Explainer(forward, np.zeros(3)), np.ones((5, 3))).tolist() == [0, 0, 0]


def test_a_predictor_explains_rows_and_refuses_invalid_ones() -> None:
    forward = make(4, 6, 3)
    baseline = np.float32([1, 2, 3, 4])
    local = LocalPredictor(
        forward.network, forward.theta, input_offset=np.full(4, 1e9), baseline=baseline
    )
    local = pickle.loads(pickle.dumps(local))
    X = 1e9 + np.random.default_rng(0).normal(size=(7, 4))
    found = local.contributions(X)
    assert found.shape == (7, 3, 4)
    gain = local.predict_raw(X) - local.predict_raw(1e9 + baseline[None].astype(np.float64))
    np.testing.assert_allclose(found.sum(axis=2), gain, atol=1e-5)
    X[3, 0] = np.nan
    with pytest.raises(ValueError, match="in 1 of 7 rows"):
        local.contributions(X)
    with pytest.raises(ValueError, match="Fit it again"):
        replace(local, baseline=None).contributions(X[:3])
