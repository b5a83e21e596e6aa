"""The round loop: laws on real rows."""

from typing import Any

import numpy as np
import pytest
from toys import Array, blobs, data_for, engine_of, full_batch

from sparknn.core.config import AveragingConfig, RoundRequest, TrainConfig
from sparknn.core.data.batches import rng_for
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.round_length import RoundTimes
from sparknn.core.training.rounds import run
from sparknn.core.training.worker_round import train_locally
from sparknn.engine.local import LocalEngine

NETWORK = Network((4, 6, 3), "tanh")
REGRESSION = Network((4, 6, 2), "tanh", "squared")


def fitted(
    engine: LocalEngine, config: TrainConfig, averaging: AveragingConfig | None = None
) -> FitState:
    fit = FitState(config, averaging or AveragingConfig(), engine.n_workers)
    run(engine, [fit])
    return fit


def theta_of(fit: FitState) -> Array:
    assert fit.theta is not None
    assert fit.theta.dtype == np.float32
    return fit.theta


@pytest.mark.parametrize("local_state", ["average", "reset"])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_one_worker_is_train_locally_in_a_loop_to_the_byte(solver: str, local_state: str) -> None:
    X, y = blobs(53)
    weight = np.random.default_rng(0).uniform(0.1, 3, 53)
    config = TrainConfig(
        NETWORK, seed=4, max_iter=5, solver=solver, step_size=0.02, batch_size=8, dropout=0.1,
        local_state=local_state,
    )  # fmt: skip
    fit = fitted(engine_of(X, y, [53], weight), config)

    start = FitState(config, AveragingConfig(), 1).request()
    state, n_steps = start.state, 0.0
    for round_ in range(5):
        result = train_locally(
            RoundRequest(config, state, n_steps), ArrayRows(X, y, weight), round_, 0
        )
        state, n_steps = result.state, n_steps + result.n_steps
    assert theta_of(fit).tobytes() == state[0].tobytes()
    assert theta_of(fit).tobytes() != start.state[0].tobytes()
    assert sum(record.n_steps for record in fit.history) == n_steps


@pytest.mark.parametrize("network", [NETWORK, REGRESSION], ids=lambda n: n.loss)
@pytest.mark.parametrize("sizes", [[20, 20, 20], [1, 7, 52], [30, 0, 30]], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "momentum"])
def test_one_full_batch_step_per_worker_is_one_pooled_step(
    network: Network, sizes: list[int], weighted: bool, solver: str
) -> None:
    """Workers' gradients, weighted by their rows, average to the pooled gradient.

    This holds with momentum over several rounds, because its buffer is averaged too.
    """
    X, y = data_for(network, 60)
    weight = np.random.default_rng(0).uniform(0, 5, 60) if weighted else None
    config = full_batch(network, solver=solver, max_iter=6, step_size=0.1, l2=0.05)
    spread = fitted(engine_of(X, y, sizes, weight), config)
    pooled = fitted(engine_of(X, y, [60], weight), config)
    np.testing.assert_allclose(theta_of(spread), theta_of(pooled), atol=1e-6)
    for mine, yours in zip(spread.history, pooled.history, strict=True):
        assert mine.loss == pytest.approx(yours.loss, rel=1e-5)
        assert mine.n_rows == yours.n_rows
    assert pooled.history[-1].loss < pooled.history[0].loss


@pytest.mark.parametrize("solver", ["momentum", "ngsgd"])
def test_velocities_are_averaged_like_networks(solver: str) -> None:
    """From rest, a worker's first step is its velocity; so the mean step is the mean velocity."""
    X, y = blobs(60)
    engine = engine_of(X, y, [20, 40])
    fit = FitState(full_batch(NETWORK, solver=solver), AveragingConfig(), 2)
    start = fit.request().state
    result = engine.run_round([fit.request()], 0)
    fit.end_round(engine, result.totals[0], 0, RoundTimes(1.0))
    theta, velocity = fit.request().state
    np.testing.assert_array_equal(start[1], 0)
    np.testing.assert_allclose(velocity, theta - start[0], atol=1e-6)
    assert np.abs(velocity).max() > 1e-2


def test_a_worker_counts_by_the_weight_of_its_rows_not_by_their_number() -> None:
    """A hundred rows of weight 0.01 count as much as one of weight 1."""
    X, y = blobs(101)
    weight = np.where(np.arange(101) < 100, 0.01, 1.0)
    config = full_batch(NETWORK, max_iter=1)
    start = FitState(config, AveragingConfig(), 1).request().state[0]
    both = theta_of(fitted(engine_of(X, y, [100, 1], weight), config)) - start
    many = theta_of(fitted(engine_of(X[:100], y[:100], [100]), config)) - start
    one = theta_of(fitted(engine_of(X[100:], y[100:], [1]), config)) - start
    np.testing.assert_allclose(both, (many + one) / 2, atol=1e-6)


def test_local_epochs_do_not_change_a_workers_share() -> None:
    X, y = blobs(60)
    totals = []
    for epochs in (1, 3):
        engine = engine_of(X, y, [10, 50])
        request = FitState(
            TrainConfig(NETWORK, local_epochs=epochs), AveragingConfig(), 2
        ).request()
        totals.append(engine.run_round([request], 0).totals[0])
    assert [[r.share for r in total.ordered()] for total in totals] == [[10 / 64, 50 / 64]] * 2


def fits_of_all_kinds() -> list[FitState]:
    configs = [
        (TrainConfig(NETWORK, max_iter=6, batch_size=8), AveragingConfig()),
        (
            TrainConfig(NETWORK, max_iter=3, solver="adam", step_size=0.01),
            AveragingConfig("nesterov", 0.5),
        ),
        (
            TrainConfig(NETWORK, max_iter=5, solver="sgd", seed=9),
            AveragingConfig("nesterov", 0.75),
        ),
        (
            TrainConfig(NETWORK, max_iter=6, dropout=0.2),
            AveragingConfig("nesterov", 0.5),
        ),
        (TrainConfig(NETWORK, max_iter=4, l2=0.1), AveragingConfig()),
        (
            TrainConfig(NETWORK, max_iter=6, step_size=2.0),
            AveragingConfig(final="best", patience=1),
        ),
    ]
    return [FitState(config, averaging, 3) for config, averaging in configs]


def info(fit: FitState) -> list[tuple[Any, ...]]:
    """The history without timings."""
    return [
        (r.round, r.loss, r.validation_loss, r.n_steps, r.drift, r.agreement, r.step_norm)
        for r in fit.history
    ]


def test_fits_trained_together_equal_fits_trained_separately_to_the_byte() -> None:
    X, y = blobs(70)
    engine = engine_of(X, y, [30, 25, 15], validation=blobs(20, seed=5))
    together, separate = fits_of_all_kinds(), fits_of_all_kinds()
    run(engine, together)
    for fit in separate:
        run(engine, [fit])
    for mine, yours in zip(together, separate, strict=True):
        assert theta_of(mine).tobytes() == theta_of(yours).tobytes()
        assert info(mine) == info(yours)
    assert len({theta_of(fit).tobytes() for fit in together}) == len(together)
    assert [len(fit.history) for fit in together[:5]] == [6, 3, 5, 6, 4]
    assert len(together[5].history) < 6


def test_a_fit_repeats_itself_and_the_seed_changes_it() -> None:
    X, y = blobs(70)
    engine = engine_of(X, y, [30, 40])
    once, again, other = (
        fitted(engine, TrainConfig(NETWORK, seed=s, batch_size=8)) for s in (1, 1, 2)
    )
    assert theta_of(once).tobytes() == theta_of(again).tobytes()
    assert theta_of(once).tobytes() != theta_of(other).tobytes()


@pytest.mark.parametrize("local_state", ["average", "reset"])
@pytest.mark.parametrize("rule", ["mean", "nesterov"])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_combination_learns(solver: str, rule: str, local_state: str) -> None:
    X, y = blobs(300)
    engine = engine_of(X, y, [100, 100, 100], validation=blobs(100, seed=5))
    step_size = 0.02 if solver.startswith("adam") else 0.1
    config = TrainConfig(
        NETWORK, max_iter=12, solver=solver, step_size=step_size, batch_size=16,
        local_state=local_state,
    )  # fmt: skip
    fit = fitted(engine, config, AveragingConfig(rule, momentum=0.5))
    assert fit.history[-1].validation_metric > 0.8
    assert fit.history[-1].loss < 0.7 * fit.history[0].loss
    assert all(record.workers_left_out == 0 for record in fit.history)


def test_a_given_start_is_used_and_not_written_to() -> None:
    X, y = blobs(40)
    engine = engine_of(X, y, [20, 20])
    config = TrainConfig(NETWORK, max_iter=3)
    theta = theta_of(fitted(engine, config)).astype(np.float64)
    kept = theta.copy()
    fit = FitState(config, AveragingConfig(), 2, theta=theta)
    np.testing.assert_array_equal(fit.request().state[0], theta)
    run(engine, [fit])
    np.testing.assert_array_equal(theta, kept)
    assert fit.history[0].loss < fitted(engine, config).history[0].loss


def test_the_initial_network_has_a_stream_of_its_own() -> None:
    """Its stream is not that of any worker in any round."""
    config = TrainConfig(NETWORK, seed=3)
    theta = FitState(config, AveragingConfig(), 1).request().state[0]
    assert theta.tobytes() == FitState(config, AveragingConfig(), 8).request().state[0].tobytes()
    for position in [(), (0,), (0, 0), (0, 1), (1, 0)]:
        assert NETWORK.init(rng_for(3, *position)).tobytes() != theta.tobytes()


@pytest.mark.parametrize("sizes", [[1], [1, 0, 0], [1, 1, 0, 1, 0]], ids=str)
def test_more_workers_than_rows(sizes: list[int]) -> None:
    X, y = blobs(sum(sizes))
    fit = fitted(
        engine_of(X, y, sizes, validation=blobs(5, seed=5)), TrainConfig(NETWORK, max_iter=3)
    )
    assert [record.n_rows for record in fit.history] == [sum(sizes)] * 3
    assert [record.workers_left_out for record in fit.history] == [0] * 3
    assert np.isfinite(theta_of(fit)).all()


def test_a_shard_of_weight_0_is_ignored() -> None:
    X, y = blobs(40)
    weight = np.where(np.arange(40) < 25, 1.0, 0.0)
    config = TrainConfig(NETWORK, max_iter=3, batch_size=4)
    fit = fitted(engine_of(X, y, [25, 15], weight), config)
    none = ArrayRows(X[:0], y[:0])
    alone = fitted(LocalEngine([(ArrayRows(X[:25], y[:25]), none)], weight_scale_for(25)), config)
    assert theta_of(fit).tobytes() == theta_of(alone).tobytes()
    assert fit.history[0].workers_left_out == 0


def test_rounds_that_draw_only_rows_of_weight_0_are_not_divergence() -> None:
    X, y = blobs(20)
    weight = np.where(np.arange(20) < 2, 1.0, 0.0)
    config = TrainConfig(NETWORK, max_iter=10, mini_batch_fraction=0.1, schedule="constant")
    fit = fitted(engine_of(X, y, [20], weight), config)
    assert [record.n_steps for record in fit.history] == [1] + [0] * 9
    assert [record.step_factor for record in fit.history] == [1] * 10
    assert np.isnan([record.loss for record in fit.history[1:]]).all()
