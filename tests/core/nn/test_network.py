"""The network: its blocks, its start, its outputs, and its gradient by central differences."""

from typing import Any

import numpy as np
import pytest
from toys import Array, data_for

from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.losses import LOSSES
from sparknn.core.nn.network import Backprop, Network

HIDDEN = [(), (5,), (5, 4), (4, 3, 5)]


def network_of(hidden: tuple[int, ...], activation: str = "relu", loss: str = "squared") -> Network:
    return Network((4, *hidden, 3), activation, loss)


def gradient(
    network: Network,
    theta: Array,
    batch: tuple[Array, Array, Array],
    *,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[float, Array]:
    """The weighted sum of the losses, and its gradient."""
    rng = np.random.default_rng(3)
    passes = Backprop(network, len(batch[0]), dtype=theta.dtype.type, dropout=dropout, rng=rng)
    out = np.full_like(theta, np.nan)
    loss = passes.gradient(network.blocks(theta), *batch, network.blocks(out), **more)
    return loss, out


def weighted_batch(network: Network, n: int = 7) -> tuple[Array, Array, Array]:
    X, y = data_for(network, n, seed=2)
    sample_weight = np.random.default_rng(4).uniform(0.2, 3, size=n)
    return X.astype(np.float64), y, sample_weight


def some_theta(network: Network) -> Array:
    """Parameters without a zero bias, so that a wrong bias gradient cannot hide."""
    return np.random.default_rng(1).normal(size=network.n_params) * 0.7


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradient_by_central_differences(
    activation: str, loss: str, hidden: tuple[int, ...], dropout: float
) -> None:
    network = network_of(hidden, activation, loss)
    theta, batch = some_theta(network), weighted_batch(network)
    if loss == "poisson":
        # Its means are exponentials.
        theta *= 0.4
    scale = -0.3
    _, got = gradient(network, theta, batch, dropout=dropout, scale=scale)

    numeric, step = np.empty_like(theta), 1e-6
    for i in range(theta.size):
        moved = theta.copy()
        moved[i] = theta[i] + step
        above, _ = gradient(network, moved, batch, dropout=dropout)
        moved[i] = theta[i] - step
        below, _ = gradient(network, moved, batch, dropout=dropout)
        numeric[i] = scale * (above - below) / (2 * step)
    np.testing.assert_allclose(got, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_training_and_predicting_see_the_same_outputs(activation: str) -> None:
    network = network_of((5, 4), activation)
    theta, (X, y, sample_weight) = some_theta(network), weighted_batch(network)
    loss, _ = gradient(network, theta, (X, y, sample_weight))
    values = network.loss_fn.values(network.logits(theta, X), y)
    assert loss == pytest.approx(values @ sample_weight, rel=1e-12)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_logits_leave_their_arguments_alone(activation: str) -> None:
    network = network_of((5, 4), activation)
    theta, (X, _, _) = some_theta(network), weighted_batch(network)
    kept = theta.copy(), X.copy()
    network.logits(theta, X)
    np.testing.assert_array_equal(theta, kept[0])
    np.testing.assert_array_equal(X, kept[1])


def test_logits_row_by_row() -> None:
    network = network_of((5, 4), "tanh")
    theta, (X, _, _) = some_theta(network), weighted_batch(network)
    (W1, b1, _), (W2, b2, _), (W3, b3, _) = network.blocks(theta)
    for x, got in zip(X, network.logits(theta, X), strict=True):
        a1 = np.tanh([x @ W1[:, j] + b1[j] for j in range(5)])
        a2 = np.tanh([a1 @ W2[:, j] + b2[j] for j in range(4)])
        np.testing.assert_allclose(got, a2 @ W3 + b3, rtol=1e-12)


def test_blocks_are_views_that_cover_theta_once() -> None:
    network = Network((4, 5, 3))
    theta = np.zeros(network.n_params)
    blocks = network.blocks(theta)
    assert [[view.shape for view in block] for block in blocks] == [
        [(4, 5), (5,), (5, 5)],
        [(5, 3), (3,), (6, 3)],
    ]
    assert network.n_params == 5 * 5 + 6 * 3
    for W, b, both in blocks:
        W += 1
        b += 1
        np.testing.assert_array_equal(both, 1)
    np.testing.assert_array_equal(theta, 1)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_initial_weights_have_the_published_variance(activation: str) -> None:
    network = Network((400, 300, 200), activation)
    theta = network.init(np.random.default_rng(0))
    assert theta.dtype == np.float32
    first, last = network.blocks(theta)
    np.testing.assert_array_equal(first.b, 0)
    np.testing.assert_array_equal(last.b, 0)
    assert first.W.var() == pytest.approx(2 / 400 if activation == "relu" else 2 / 700, rel=0.02)
    assert last.W.var() == pytest.approx(2 / 500, rel=0.02)


def test_initial_weights_follow_the_stream() -> None:
    network = Network((4, 5, 3))
    once, again, other = (network.init(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_smaller_batch_after_a_larger_one(activation: str) -> None:
    """The arrays of a step are reused; nothing of a batch is left in the next one."""
    network = network_of((5, 4), activation)
    theta, batch = some_theta(network), weighted_batch(network, 9)
    small = (batch[0][:4], batch[1][:4], batch[2][:4])
    passes = Backprop(network, 9, dtype=np.float64)
    out = np.empty_like(theta)
    passes.gradient(network.blocks(theta), *batch, network.blocks(out))
    loss = passes.gradient(network.blocks(theta), *small, network.blocks(out))
    fresh_loss, fresh = gradient(network, theta, small)
    assert loss == pytest.approx(fresh_loss, rel=1e-13)
    np.testing.assert_allclose(out, fresh, rtol=1e-10, atol=1e-13)


def test_precondition_replaces_both_factors() -> None:
    network = network_of((5, 4), "tanh")
    theta, batch = some_theta(network), weighted_batch(network)
    seen = []

    def double_odd_layers(layer: int, A: Array, dZ: Array, root: Array) -> tuple[Array, Array]:
        np.testing.assert_allclose(root[:, 0] ** 2, batch[2])
        seen.append(layer)
        return np.hstack([A, np.ones((len(A), 1))]), dZ * (1 + layer % 2)

    _, plain = gradient(network, theta, batch)
    _, got = gradient(network, theta, batch, precondition=double_odd_layers)
    assert seen == [2, 1, 0]
    for layer, (mine, reference) in enumerate(
        zip(network.blocks(got), network.blocks(plain), strict=True)
    ):
        expected = reference.both * (1 + layer % 2)
        np.testing.assert_allclose(mine.both, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ["identity", "gelu"])
def test_dropout_keeps_the_expected_output(activation: str) -> None:
    """4000 equal units averaged: half of them dropped, what is left counts twice."""
    units = 4000
    network = Network((1, units, 1), activation, "squared")
    theta = np.zeros(network.n_params)
    first, last = network.blocks(theta)
    first.W[...], last.W[...] = 1, 1 / units
    batch = (np.full((1, 1), 3.0), np.zeros((1, 1)), np.ones(1))
    whole, _ = gradient(network, theta, batch)
    loss, got = gradient(network, theta, batch, dropout=0.5)
    assert loss == pytest.approx(whole, rel=0.1)
    share_dropped = float((network.blocks(got)[1].W == 0).mean())
    assert share_dropped == pytest.approx(0.5, abs=0.05)


def test_dropout_draws_from_its_stream() -> None:
    network = network_of((50,))
    theta, batch = some_theta(network), weighted_batch(network)
    passes = Backprop(network, 7, dtype=np.float64, dropout=0.5, rng=np.random.default_rng(3))
    first, second = np.empty_like(theta), np.empty_like(theta)
    passes.gradient(network.blocks(theta), *batch, network.blocks(first))
    passes.gradient(network.blocks(theta), *batch, network.blocks(second))
    _, again = gradient(network, theta, batch, dropout=0.5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
