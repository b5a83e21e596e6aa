"""Forward pass, backward pass and solvers against scikit-learn's networks."""

from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor
from toys import Array, data_for, full_batch

from sparknn.core.config import RoundRequest
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.losses import softmax
from sparknn.core.nn.network import Backprop, Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.worker_round import train_locally

NAMES = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}
CASES = [
    (activation, loss, hidden)
    for activation in NAMES
    for loss in ("crossEntropy", "squared")
    for hidden in ((6,), (6, 5))
]
N_ROWS, STEP_SIZE, MOMENTUM = 40, 0.05, 0.8

Oracle = MLPClassifier | MLPRegressor


def oracle_of(network: Network, theta: Array, X: Array, y: Array, **changes: Any) -> Oracle:
    """scikit-learn's network with the parameters ``theta``, one full-batch step per call."""
    kind = MLPClassifier if network.loss_fn.classifies else MLPRegressor
    oracle = kind(
        hidden_layer_sizes=network.layers[1:-1],
        activation=NAMES[network.activation],
        batch_size=N_ROWS,
        learning_rate_init=STEP_SIZE,
        nesterovs_momentum=False,
        shuffle=False,
        random_state=0,
        **({"solver": "sgd", "alpha": 0.0, "momentum": 0.0} | changes),
    )
    # A first step allocates the arrays; its optimiser is discarded.
    if isinstance(oracle, MLPClassifier):
        oracle.partial_fit(X, y, classes=np.unique(y))
    else:
        oracle.partial_fit(X, y)
    del oracle._optimizer
    oracle.t_ = 0
    blocks = network.blocks(theta.astype(np.float64))
    oracle.coefs_ = [block.W.copy() for block in blocks]
    oracle.intercepts_ = [block.b.copy() for block in blocks]
    return oracle


def theta_of(oracle: Oracle) -> Array:
    pairs = zip(oracle.coefs_, oracle.intercepts_, strict=True)
    return np.concatenate([np.vstack([W, b]).ravel() for W, b in pairs])


def case(
    activation: str, loss: str, hidden: tuple[int, ...]
) -> tuple[Network, Array, Array, Array]:
    network = Network((4, *hidden, 3), activation, loss)
    X, y = data_for(network, N_ROWS, seed=1)
    theta = np.random.default_rng(1).normal(size=network.n_params).astype(np.float32) * 0.5
    return network, theta, X, y


@pytest.mark.parametrize(("activation", "loss", "hidden"), CASES)
def test_predictions(activation: str, loss: str, hidden: tuple[int, ...]) -> None:
    network, theta, X, y = case(activation, loss, hidden)
    oracle = oracle_of(network, theta, X.astype(np.float64), y)
    logits = network.logits(theta, X)
    if isinstance(oracle, MLPClassifier):
        np.testing.assert_allclose(softmax(logits), oracle.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(logits, oracle.predict(X), atol=1e-5)


@pytest.mark.parametrize(("activation", "loss", "hidden"), CASES)
def test_gradient(activation: str, loss: str, hidden: tuple[int, ...]) -> None:
    network, theta32, X32, y = case(activation, loss, hidden)
    theta, X = theta32.astype(np.float64), X32.astype(np.float64)
    oracle = oracle_of(network, theta, X, y)
    oracle.partial_fit(X, y)
    # The squared loss that it reports, unlike its gradient, is a mean over the targets too.
    share = 1 if network.loss_fn.classifies else network.layers[-1]

    passes = Backprop(network, N_ROWS, dtype=np.float64)
    out = np.empty_like(theta)
    value = passes.gradient(
        network.blocks(theta), X, y, np.ones(N_ROWS), network.blocks(out), scale=-STEP_SIZE / N_ROWS
    )
    assert value / N_ROWS / share == pytest.approx(oracle.loss_, rel=1e-9)
    moved = theta_of(oracle) - theta
    np.testing.assert_allclose(out, moved, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("loss", ["crossEntropy", "squared"])
@pytest.mark.parametrize(
    ("solver", "theirs"),
    [
        ("sgd", {}),
        ("momentum", {"momentum": MOMENTUM}),
        ("adam", {"solver": "adam", "beta_1": MOMENTUM}),
    ],
)
def test_solvers_for_ten_steps_with_a_penalty(
    loss: str, solver: str, theirs: dict[str, Any]
) -> None:
    network, theta, X, y = case("tanh", loss, (6, 5))
    oracle = oracle_of(network, theta, X.astype(np.float64), y, alpha=0.8, **theirs)
    for _ in range(10):
        oracle.partial_fit(X.astype(np.float64), y)

    config = full_batch(
        network,
        solver=solver,
        step_size=STEP_SIZE,
        momentum=MOMENTUM,
        local_epochs=10,
        # alpha is a penalty on the sum over the rows.
        l2=0.8 / N_ROWS,
    )
    state = np.vstack([theta, np.zeros((SOLVERS[solver].n_buffers, theta.size))])
    result = train_locally(RoundRequest(config, state.astype(np.float32)), ArrayRows(X, y), 0, 0)
    assert result.n_steps == 10
    # adam divides by the gradient's size: where that is near 0, float32's noise shows.
    atol = 2e-4 if solver == "adam" else 2e-5
    np.testing.assert_allclose(result.state[0], theta_of(oracle), atol=atol)
    assert np.abs(result.state[0] - theta).max() > 0.05
