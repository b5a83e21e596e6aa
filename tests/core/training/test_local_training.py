"""Training and scoring on one worker: laws."""

from dataclasses import replace

import numpy as np
import pytest
from toys import Array, CsrRows, blobs, curve, data_for, full_batch, request_of

from sparknn.core.config import RoundRequest, Standardizer, TrainConfig
from sparknn.core.data import batches as batches_module
from sparknn.core.data.rows import ArrayRows, DenseSlice
from sparknn.core.nn.losses import LOSSES, softmax
from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training import worker_round as training
from sparknn.core.training.local_trainer import LocalResult
from sparknn.core.training.worker_round import score, train_locally

NETWORK = Network((4, 6, 3), "tanh")
REGRESSION = Network((4, 6, 2), "tanh", "squared")
PLAIN_SOLVERS = ["sgd", "momentum", "adam", "adamw"]


def trained(config: TrainConfig, X: Array, y: Array, weight: Array | None = None) -> LocalResult:
    return train_locally(request_of(config), ArrayRows(X, y, weight), 0, 0)


# -- laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
def test_a_pure_function_of_its_arguments(solver: str, dropout: float) -> None:
    X, y = blobs(50)
    config = TrainConfig(NETWORK, solver=solver, batch_size=7, dropout=dropout, seed=3)
    request = request_of(config)
    rows = ArrayRows(X.copy(), y.copy())
    one, two = train_locally(request, rows, 1, 2), train_locally(request, rows, 1, 2)
    assert one.state.tobytes() == two.state.tobytes()
    np.testing.assert_array_equal(rows.X, X)
    np.testing.assert_array_equal(rows.y, y)
    for round_, partition in [(1, 3), (2, 2)]:
        assert (
            train_locally(request, rows, round_, partition).state.tobytes() != one.state.tobytes()
        )


def test_counts_rows_weights_and_steps() -> None:
    X, y = blobs(50)
    weight = np.linspace(0.1, 2, 50)
    result = trained(TrainConfig(NETWORK, batch_size=8, local_epochs=3), X, y, weight)
    assert result.n_rows == 150
    assert result.n_steps == 3 * 7
    assert result.weight == pytest.approx(3 * weight.sum(), rel=1e-12)


def test_the_loss_is_that_before_the_step() -> None:
    X, y = blobs(40)
    config = full_batch(NETWORK)
    request = request_of(config)
    expected = NETWORK.loss_fn.values(NETWORK.logits(request.state[0], X), y).sum()
    assert train_locally(request, ArrayRows(X, y), 0, 0).loss_sum == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("by", ["rows", "classes"])
@pytest.mark.parametrize("solver", ["sgd", "momentum", "ngsgd"])
def test_rare_heavy_rows_count_as_much_as_they_weigh(solver: str, by: str) -> None:
    """In mini-batches too: 10 rows of weight 99 and 990 of weight 1 count the same."""
    X = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    y = (np.arange(1000) % 100 == 0).astype(np.float64)
    network = Network((5, 2))
    weights = np.array([1.0, 99.0]) * 1000 / 1980
    config = TrainConfig(network, solver=solver, step_size=0.01, max_iter=20, batch_size=16)
    config = replace(config, class_weight=weights if by == "classes" else None)
    rows = ArrayRows(X, y, weights[y.astype(int)] if by == "rows" else None)
    request = request_of(config)
    for round_ in range(config.max_iter):
        request = replace(request, state=train_locally(request, rows, round_, 0).state)
    likely = softmax(network.logits(request.state[0], X))[:, 1].mean()
    assert 0.4 < likely < 0.6


@pytest.mark.parametrize("network", [NETWORK, REGRESSION], ids=lambda n: n.loss)
@pytest.mark.parametrize("solver", [*PLAIN_SOLVERS, "ngsgd"])
def test_weight_0_is_no_row_and_weight_2_is_two_rows(network: Network, solver: str) -> None:
    X, y = data_for(network, 40)
    weight = np.tile([0.0, 1.0, 2.0, 1.0], 10)
    config = full_batch(network, solver=solver, step_size=0.05, local_epochs=5)
    weighted = trained(config, X, y, weight)
    repeated = np.repeat(np.arange(40), weight.astype(int))
    written_out = trained(config, X[repeated], y[repeated])
    atol = 1e-4 if solver.startswith("adam") else 2e-6
    np.testing.assert_allclose(weighted.state[0], written_out.state[0], atol=atol)
    assert weighted.weight == written_out.weight
    assert weighted.loss_sum == pytest.approx(written_out.loss_sum, rel=1e-5)


@pytest.mark.parametrize("solver", [*PLAIN_SOLVERS, "ngsgd"])
def test_only_weights_relative_to_each_other_move_the_network(solver: str) -> None:
    X, y = blobs(40)
    weight = np.random.default_rng(0).uniform(0.5, 2, 40)
    config = TrainConfig(NETWORK, solver=solver, step_size=0.01, batch_size=8)
    one, thousandth = trained(config, X, y, weight), trained(config, X, y, weight / 1024)
    np.testing.assert_allclose(one.state, thousandth.state, rtol=1e-5, atol=1e-6)
    assert one.weight == pytest.approx(1024 * thousandth.weight, rel=1e-12)


def test_sparse_rows_train_like_dense_ones() -> None:
    X, y = blobs(60)
    X[np.random.default_rng(0).random(X.shape) < 0.5] = 0
    config = TrainConfig(NETWORK, batch_size=8, local_epochs=2)
    dense = train_locally(request_of(config), ArrayRows(X, y), 0, 0)
    sparse = train_locally(request_of(config), CsrRows(X, y, np.ones(60)), 0, 0)
    assert dense.state.tobytes() == sparse.state.tobytes()


def test_windows_are_read_from_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unshuffled and in whole batches, several windows train like one."""
    X, y = blobs(64)
    config = TrainConfig(NETWORK, batch_size=8, shuffle=False)
    one = trained(config, X, y)
    monkeypatch.setattr(
        batches_module, "WINDOW_BYTES", 16 * batches_module.row_bytes(ArrayRows(X, y))
    )
    assert trained(config, X, y).state.tobytes() == one.state.tobytes()


# -- penalties, guards, solver state ------------------------------------------------------------


@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
def test_the_penalty_spares_biases(solver: str) -> None:
    """Rows without information about the weights: these shrink, and the biases do not."""
    network = Network((2, 2), loss="squared")
    theta = np.array([1, 2, 3, 4, 0.5, -0.5], np.float32)
    X, y = np.zeros((8, 2), np.float32), np.tile([0.5, -0.5], (8, 1))
    config = full_batch(network, solver=solver, l2=0.2, step_size=0.1, momentum=0.9)
    result = train_locally(request_of(config, theta), ArrayRows(X, y), 0, 0)
    got = result.state[0]
    np.testing.assert_array_equal(got[4:], theta[4:])
    expected = theta[:4] - 0.1 if solver == "adam" else theta[:4] * (1 - 0.1 * 0.2)
    np.testing.assert_allclose(got[:4], expected, rtol=1e-6)


def test_adamw_penalises_by_the_step_size_and_adam_through_the_gradient() -> None:
    X, y = blobs(40)
    results = [
        trained(full_batch(NETWORK, solver=solver, l2=l2, step_size=0.01), X, y).state[0]
        for solver, l2 in [("adam", 0.0), ("adamw", 0.0), ("adam", 0.5), ("adamw", 0.5)]
    ]
    np.testing.assert_array_equal(results[0], results[1])
    theta = request_of(full_batch(NETWORK)).state[0]
    shrunk = NETWORK.blocks(results[0] - results[3])
    for block, start in zip(shrunk, NETWORK.blocks(theta), strict=True):
        np.testing.assert_allclose(block.W, 0.01 * 0.5 * start.W, atol=1e-6)
        np.testing.assert_array_equal(block.b, 0)
    assert np.abs(results[2] - results[3]).max() > 1e-3


@pytest.mark.parametrize("solver", ["sgd", "momentum", "ngsgd"])
def test_a_step_is_shortened_to_max_change(solver: str) -> None:
    X, y = blobs(40)
    long = full_batch(NETWORK, solver=solver, step_size=50.0)
    start = request_of(long).state[0]
    free = trained(long, X, y).state[0] - start
    kept = trained(full_batch(NETWORK, solver=solver, step_size=50.0, max_change=0.5), X, y)
    step = kept.state[0] - start
    assert np.linalg.norm(free) > 5
    assert np.linalg.norm(step) == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(step / 0.5, free / np.linalg.norm(free), atol=1e-5)


@pytest.mark.parametrize("solver", ["adam", "adamw"])
def test_max_change_leaves_adam_alone(solver: str) -> None:
    X, y = blobs(40)
    free, guarded = (
        trained(full_batch(NETWORK, solver=solver, max_change=change), X, y) for change in (0, 1e-9)
    )
    assert free.state.tobytes() == guarded.state.tobytes()


@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(solver: str) -> None:
    """One row's square overflows float32; the batches without it train as if it were not there."""
    X, y = curve(40, k=2)
    X[17] = 3e38
    network = Network((4, 2), loss="squared")
    config = TrainConfig(
        network, solver=solver, step_size=0.01, batch_size=4, shuffle=False, l2=0.1
    )
    with np.errstate(all="ignore"):
        result = trained(config, X, y)
    assert result.n_skipped == 1
    assert result.n_steps == 9
    assert np.isfinite(result.state).all()
    assert not np.array_equal(result.state[0], request_of(config).state[0])


@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
def test_a_round_of_skipped_steps_changes_nothing(solver: str) -> None:
    X, y = curve(8, k=2)
    X[:] = 3e38
    config = TrainConfig(Network((4, 2), loss="squared"), solver=solver, batch_size=4, l2=0.1)
    with np.errstate(all="ignore"):
        result = trained(config, X, y)
    assert (result.n_skipped, result.n_steps) == (2, 0)
    np.testing.assert_array_equal(result.state, request_of(config).state)


@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
def test_solver_state_is_averaged_or_reset(solver: str) -> None:
    X, y = blobs(40)
    rows = ArrayRows(X, y)
    kept = full_batch(NETWORK, solver=solver, step_size=0.05, local_epochs=3)
    fresh = full_batch(NETWORK, solver=solver, step_size=0.05, local_epochs=3, local_state="reset")
    n_buffers = SOLVERS[solver].n_buffers

    first, reset = (
        train_locally(request_of(kept), rows, 0, 0),
        train_locally(request_of(fresh), rows, 0, 0),
    )
    assert first.state.shape == (1 + n_buffers, NETWORK.n_params)
    assert reset.state.shape == (1, NETWORK.n_params)
    # Both begin with empty buffers.
    np.testing.assert_array_equal(first.state[0], reset.state[0])

    # Two rounds that pass buffers on are one round of twice the length.
    second = train_locally(RoundRequest(kept, first.state, n_steps=first.n_steps), rows, 1, 0)
    whole = full_batch(NETWORK, solver=solver, step_size=0.05, local_epochs=6)
    at_once = train_locally(request_of(whole), rows, 0, 0)
    np.testing.assert_allclose(second.state[0], at_once.state[0], atol=1e-6)
    if n_buffers:
        again = train_locally(request_of(fresh, first.state[0], n_steps=3.0), rows, 1, 0)
        assert np.abs(again.state[0] - at_once.state[0]).max() > 1e-3


@pytest.mark.parametrize("solver", ["momentum", "ngsgd"])
def test_a_broadcast_velocity_moves_the_network_and_is_returned(solver: str) -> None:
    """Rows that are predicted exactly: the gradient is 0, so only momentum acts."""
    network = Network((2, 2), loss="squared")
    theta = np.array([1, 2, 3, 4, 0.5, -0.5], np.float32)
    velocity = np.array([8, -4, 2, 0, 1, -1], np.float32)
    rows = ArrayRows(np.zeros((8, 2), np.float32), np.tile([0.5, -0.5], (8, 1)))
    config = full_batch(network, solver=solver, momentum=0.75)
    result = train_locally(RoundRequest(config, np.stack([theta, velocity])), rows, 0, 0)
    assert result.n_steps == 1
    np.testing.assert_array_equal(result.state, [theta + 0.75 * velocity, 0.75 * velocity])


def test_the_step_factor_multiplies_the_step() -> None:
    X, y = blobs(40)
    config, rows = full_batch(NETWORK), ArrayRows(X, y)
    start = request_of(config).state[0]
    whole = train_locally(request_of(config), rows, 0, 0).state[0] - start
    half = train_locally(request_of(config, step_factor=0.5), rows, 0, 0).state[0] - start
    np.testing.assert_allclose(half, whole / 2, atol=1e-7)


def test_dropout_regularises_training_and_not_scoring() -> None:
    X, y = blobs(40)
    rows = ArrayRows(X, y)
    plain, dropping = TrainConfig(NETWORK), TrainConfig(NETWORK, dropout=0.5)
    assert score(request_of(plain), rows) == score(request_of(dropping), rows)
    assert trained(plain, X, y).loss_sum != trained(dropping, X, y).loss_sum


# -- scoring ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("n_at_a_time", [1, 7, 1000])
def test_a_score_is_the_sums_over_the_rows(
    loss: str, n_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network((4, 5, 3), "relu", loss)
    monkeypatch.setattr(training, "_SCORE_ROWS", n_at_a_time)
    X, y = data_for(network, 50)
    weight = np.linspace(0, 2, 50)
    request, rows = request_of(TrainConfig(network)), ArrayRows(X, y, weight)
    monkeypatch.setattr(batches_module, "WINDOW_BYTES", 20 * batches_module.row_bytes(rows))
    got = score(request, rows)
    logits = network.logits(request.state[0], X)
    if loss == "crossEntropy":
        losses = -np.log(softmax(logits)[np.arange(50), y.astype(int)])
        metrics = (logits.argmax(axis=1) == y).astype(float)
    else:
        means = np.exp(logits) if loss == "poisson" else logits
        losses, metrics = network.loss_fn.values(logits, y), ((means - y) ** 2).sum(axis=1)
    assert got.loss_sum == pytest.approx(losses @ weight, rel=1e-5)
    assert got.metric_sum == pytest.approx(metrics @ weight, rel=1e-5)
    assert got.weight == pytest.approx(weight.sum(), rel=1e-12)
    assert got.n_rows == 50


def test_wide_rows_are_scored_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(DenseSlice):
        def take(self, index: Array, out: Array) -> None:
            seen.append(len(index))
            super().take(index, out)

    class WatchedRows(ArrayRows):
        def read(self, start: int, stop: int) -> Watched:
            return Watched(**vars(super().read(start, stop)))

    monkeypatch.setattr(training, "_SCORE_BYTES", 3 * 4 * 4)
    X, y = blobs(10)
    score(request_of(TrainConfig(NETWORK)), WatchedRows(X, y))
    assert sum(seen) == 10
    assert max(seen) == 3


def test_a_score_sees_standardised_features() -> None:
    X, y = blobs(30)
    shift, factor = np.full(4, 0.5, np.float32), np.full(4, 2.0, np.float32)
    scaled = (X - shift) * factor
    standardising = TrainConfig(NETWORK, standardizer=Standardizer(shift, factor))
    assert score(request_of(standardising), ArrayRows(X, y)) == score(
        request_of(TrainConfig(NETWORK)), ArrayRows(scaled, y)
    )
