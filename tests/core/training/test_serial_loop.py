"""One worker, one round, against mini-batch descent written from scratch in float64."""

from typing import Any

import numpy as np
import pytest
from toys import Array, data_for, one_by_one, request_of

from sparknn.core.config import TrainConfig
from sparknn.core.data.batches import rng_for
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.nn.schedules import SCHEDULES
from sparknn.core.training.worker_round import train_locally

NETWORK = Network((4, 6, 3), "tanh")
REGRESSION = Network((4, 6, 2), "tanh", "squared")
PLAIN_SOLVERS = ["sgd", "momentum", "adam", "adamw"]


def forward_and_backward(
    theta: list[Array], X: Array, y: Array, w: Array, mean_weight: float
) -> tuple[float, Any]:
    """A network with one tanh layer and softmax or half squared error, in float64."""
    W1, b1, W2, b2 = theta
    H = np.tanh(X @ W1 + b1)
    Z = H @ W2 + b2
    if y.ndim == 1:
        P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
        losses = -np.log(P[np.arange(len(y)), y.astype(int)])
        dZ = P - np.eye(Z.shape[1])[y.astype(int)]
    else:
        losses = ((Z - y) ** 2).sum(axis=1) / 2
        dZ = Z - y
    dZ = dZ * w[:, None] / (len(w) * mean_weight)
    dH = (dZ @ W2.T) * (1 - H**2)
    return float(losses @ w), [X.T @ dH, dH.sum(axis=0), H.T @ dZ, dZ.sum(axis=0)]


def split(network: Network, theta: Array) -> list[Array]:
    blocks = network.blocks(theta.astype(np.float64))
    return [part.copy() for block in blocks for part in (block.W, block.b)]


def serial_loop(
    config: TrainConfig, theta0: Array, rows: ArrayRows, round_: int, partition: int
) -> Any:
    """Mini-batch descent as a textbook has it, on the same batches."""
    theta = split(config.network, theta0)
    zeros = [np.zeros_like(part) for part in theta]
    velocity, m, s = zeros, zeros, zeros
    loss_sum = 0.0
    rng = rng_for(config.seed, round_, partition)
    batches = one_by_one(rows, config, round_, rng)
    drawn = [(X.astype(np.float64), y, w) for X, y, w, *_ in batches]
    mean_weight = np.concatenate([w for _, _, w in drawn]).mean()
    for t, (X, y, w) in enumerate(drawn, start=1):
        progress = (round_ + (t - 0.5) / len(drawn)) / config.max_iter
        rate = config.step_size * SCHEDULES[config.schedule](progress)
        loss, g = forward_and_backward(theta, X, y, w, mean_weight)
        loss_sum += loss
        is_weight = [True, False, True, False]
        shrink = [config.l2 * decays * p for decays, p in zip(is_weight, theta, strict=True)]
        if config.solver != "adamw":
            g = [a + b for a, b in zip(g, shrink, strict=True)]
        if config.solver in {"sgd", "momentum"}:
            norm = rate * np.sqrt(sum((a * a).sum() for a in g))
            if config.max_change and norm > config.max_change:
                g = [a * config.max_change / norm for a in g]
            beta = config.momentum if config.solver == "momentum" else 0.0
            velocity = [beta * v - rate * a for v, a in zip(velocity, g, strict=True)]
            theta = [p + v for p, v in zip(theta, velocity, strict=True)]
        else:
            m = [config.momentum * a + (1 - config.momentum) * b for a, b in zip(m, g, strict=True)]
            s = [0.999 * a + 0.001 * b * b for a, b in zip(s, g, strict=True)]
            c1, c2 = 1 - config.momentum**t, 1 - 0.999**t
            if config.solver == "adamw":
                theta = [p - rate * d for p, d in zip(theta, shrink, strict=True)]
            theta = [
                p - rate * (a / c1) / (np.sqrt(b / c2) + 1e-8)
                for p, a, b in zip(theta, m, s, strict=True)
            ]
    flat = np.concatenate([np.vstack(theta[0:2]).ravel(), np.vstack(theta[2:4]).ravel()])
    return flat, loss_sum, len(drawn)


@pytest.mark.parametrize("network", [NETWORK, REGRESSION], ids=lambda n: n.loss)
@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"l2": 0.3},
        {"schedule": "cosine", "local_epochs": 3},
        {"mini_batch_fraction": 0.4, "schedule": "constant"},
        {"max_change": 0.01},
    ],
    ids=str,
)
def test_one_worker_for_one_round_is_the_serial_loop(
    network: Network, solver: str, changes: dict[str, Any]
) -> None:
    step_size = 0.01 if solver.startswith("adam") else 0.3
    config = TrainConfig(
        network, seed=5, max_iter=4, solver=solver, step_size=step_size, batch_size=9, **changes
    )
    X, y = data_for(network, 80)
    rows = ArrayRows(X, y, np.random.default_rng(0).uniform(0.1, 3, 80))
    request = request_of(config)
    result = train_locally(request, rows, 2, 1)
    theta, loss_sum, n_steps = serial_loop(config, request.state[0], rows, 2, 1)
    assert result.n_steps == n_steps
    assert result.n_skipped == 0
    assert result.loss_sum == pytest.approx(loss_sum, rel=1e-5)
    atol = 3e-4 if solver.startswith("adam") else 2e-5
    np.testing.assert_allclose(result.state[0], theta, atol=atol)
    assert np.abs(theta - request.state[0]).max() > 100 * 2e-5
