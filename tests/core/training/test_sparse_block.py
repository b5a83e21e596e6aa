"""Training with a sparse block: against the dense network, and what workers send and get."""

from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from toys import Array, CsrRows, empty_rows, request_of

from sparknn.core.config import AveragingConfig, Standardizer, TrainConfig
from sparknn.core.data import batches
from sparknn.core.data.rows import ArrayRows, SparseRows
from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.losses import LOSSES
from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.aggregation import WorkerSum, merge_sums, weight_scale_for
from sparknn.core.training.averaging import AVERAGING_RULES
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.local_trainer import LocalResult
from sparknn.core.training.rounds import run
from sparknn.core.training.worker_round import run_worker, score, train_locally
from sparknn.engine.local import LocalEngine

D, H, K = 40, 6, 3


def sparse_data(
    n: int, loss: str = "crossEntropy", density: float = 0.1, seed: int = 0
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n, D)) * (rng.random((n, D)) < density)).astype(np.float32)
    slopes = np.random.default_rng(9).normal(size=(D, K))
    Z = X.astype(np.float64) @ slopes
    return X, Z.argmax(axis=1).astype(np.float64) if LOSSES[loss].classifies else Z


def config_of(activation: str = "tanh", loss: str = "crossEntropy", **more: Any) -> TrainConfig:
    plain: dict[str, Any] = {"batch_size": 8, "max_change": 0.0, "step_size": 0.05}
    return TrainConfig(Network((D, H, K), activation, loss), **(plain | more))


def both(
    config: TrainConfig, X: Array, y: Array, weight: Array | None = None
) -> tuple[LocalResult, LocalResult]:
    """What the dense network and the one with a sparse block learn from the same rows."""
    ones = np.ones(len(X)) if weight is None else weight
    dense = train_locally(request_of(config), ArrayRows(X, y, ones), 0, 0)
    sparse_config = replace(config, n_sparse=D)
    return dense, train_locally(request_of(sparse_config), CsrRows(X, y, ones), 0, 0)


def whole(result: LocalResult, start: Array) -> Array:
    """``theta`` of a network with a sparse block."""
    assert result.rows is not None
    theta = start.astype(np.float32)
    W = theta[: D * H].reshape(D, H)
    W[result.columns] = result.rows
    theta[D * H :] = result.state[0]
    return theta


def spent(dense: LocalResult, config: TrainConfig) -> Array:
    """The dense network's ``theta`` with the velocity of its first weights spent."""
    theta = dense.state[0].astype(np.float64)
    if SOLVERS[config.solver].scaled and len(dense.state) > 1:
        left = config.momentum / (1 - config.momentum)
        theta[: D * H] += left * dense.state[1][: D * H]
    return theta


def check_alike(config: TrainConfig, X: Array, y: Array, weight: Array | None = None) -> None:
    dense, sparse = both(config, X, y, weight)
    start = request_of(config).state[0]
    assert np.abs(dense.state[0] - start).max() > 1e-3
    np.testing.assert_allclose(whole(sparse, start), spent(dense, config), rtol=2e-3, atol=2e-5)
    for name in ("n_rows", "n_steps", "n_skipped", "weight"):
        assert getattr(sparse, name) == getattr(dense, name)
    assert sparse.loss_sum == pytest.approx(dense.loss_sum, rel=1e-4)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("solver", ["sgd", "momentum"])
def test_as_the_dense_network(solver: str, activation: str, loss: str) -> None:
    X, y = sparse_data(60, loss)
    check_alike(config_of(activation, loss, solver=solver, local_epochs=2), X, y)


@pytest.mark.parametrize(
    "more",
    [
        {"l2": 0.1},
        {"max_change": 0.02},
        {"dropout": 0.3},
        {"local_state": "reset", "solver": "sgd"},
        {"schedule": "constant", "mini_batch_fraction": 0.5},
        {"shuffle": False},
        {"solver": "sgd", "l2": 0.2},
    ],
    ids=str,
)
def test_as_the_dense_network_with(more: dict[str, Any]) -> None:
    X, y = sparse_data(60)
    check_alike(config_of(**more), X, y, np.random.default_rng(3).uniform(0.5, 2, 60))


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("solver", ["adam", "adamw"])
def test_adam_as_the_dense_network_where_every_row_touches_everything(
    solver: str, activation: str, loss: str
) -> None:
    X, y = sparse_data(60, loss, density=1.0)
    check_alike(config_of(activation, loss, solver=solver, step_size=0.01, l2=0.05), X, y)


def test_ngsgd_gives_rows_the_outputs_preconditioning_alone() -> None:
    # Its gradient is that of the dense network if the inputs' side does nothing.
    X, y = sparse_data(60)
    config = config_of(solver="ngsgd", max_change=1.0, step_size=0.1)
    dense, sparse = both(config, X, y)
    assert sparse.n_steps == dense.n_steps
    assert np.isfinite(whole(sparse, request_of(config).state[0])).all()
    assert sparse.loss_sum == pytest.approx(dense.loss_sum, rel=0.2)


def test_without_hidden_layers() -> None:
    X, y = sparse_data(60)
    config = replace(config_of(), network=Network((D, K)))
    dense, sparse = both(config, X, y)
    assert sparse.rows is not None
    assert sparse.rows.shape == (D, K)
    W = np.empty_like(sparse.rows)
    W[sparse.columns] = sparse.rows
    theta = np.concatenate([W.reshape(-1), sparse.state[0]])
    expected = dense.state[0].astype(np.float64)
    expected[: D * K] += 9 * dense.state[1][: D * K]
    np.testing.assert_allclose(theta, expected, rtol=2e-3, atol=2e-5)


def test_standardised_columns_of_which_some_are_centred() -> None:
    X, y = sparse_data(60)
    X[:, 3] += 2
    shift = np.zeros(D, np.float32)
    shift[3] = 2
    factor = np.random.default_rng(8).uniform(0.5, 2, D).astype(np.float32)
    check_alike(config_of(standardizer=Standardizer(shift, factor)), X, y)


def test_rows_are_used_however_they_are_stored() -> None:
    X, y = sparse_data(50)
    config = replace(config_of(), n_sparse=D)
    rows, columns = np.nonzero(X)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=50))])
    stored = [
        ArrayRows(X, y),
        CsrRows(X, y, np.ones(50)),
        SparseRows(X[rows, columns], columns.astype(np.int32), starts, D, y),
    ]
    results = [train_locally(request_of(config), each, 0, 0) for each in stored]
    for other in results[1:]:
        assert other.state.tobytes() == results[0].state.tobytes()
        assert other.rows is not None
        assert results[0].rows is not None
        assert other.rows.tobytes() == results[0].rows.tobytes()


def test_networks_that_learn_together_are_those_that_learn_alone() -> None:
    X, y = sparse_data(70)
    rows, none = CsrRows(X, y, np.ones(70)), empty_rows(D)
    configs = [replace(config_of(step_size=s), n_sparse=D) for s in (0.01, 0.1)]
    jobs = [request_of(config) for config in configs]
    together = run_worker(jobs, rows, none, 0, 0, 128.0)
    for job, total in zip(jobs, together, strict=True):
        (alone,) = run_worker([job], rows, none, 0, 0, 128.0)
        assert total.rows is not None
        assert alone.rows is not None
        assert total.rows.values.tobytes() == alone.rows.values.tobytes()
        assert total.values is not None
        assert alone.values is not None
        assert total.values.tobytes() == alone.values.tobytes()


def test_a_message_holds_what_was_touched() -> None:
    X, y = sparse_data(30)
    X[:, 10:] = 0
    config = replace(config_of(), n_sparse=D)
    (total,) = run_worker(
        [request_of(config)], CsrRows(X, y, np.ones(30)), empty_rows(D), 0, 0, 32.0
    )
    assert total.rows is not None
    assert total.values is not None
    assert np.array_equal(total.rows.columns, np.flatnonzero(X.any(axis=0)))
    assert total.rows.values.shape == (len(total.rows.columns), H)
    assert total.values.shape == (2, config.input_layer.dense.n_params)
    assert total.rows.shares.tolist() == [30 * 2**43]
    assert total.rows.n_workers.tolist() == [1]


def test_scores_are_the_dense_networks() -> None:
    X, y = sparse_data(300)
    config = config_of()
    theta = config.network.init(np.random.default_rng(0)) * 5
    dense = score(request_of(config, theta), ArrayRows(X, y))
    sparse = score(request_of(replace(config, n_sparse=D), theta), CsrRows(X, y, np.ones(300)))
    assert sparse.loss_sum == pytest.approx(dense.loss_sum, rel=1e-5)
    assert (sparse.metric_sum, sparse.weight, sparse.n_rows) == (
        dense.metric_sum,
        dense.weight,
        dense.n_rows,
    )


def test_windows_are_as_large_as_their_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = sparse_data(200)
    config = replace(config_of(), n_sparse=D)
    rows = CsrRows(X, y, np.ones(200))
    monkeypatch.setattr(batches, "WINDOW_BYTES", 200 * (8 * 4 + 48))
    assert len(batches.sampled_windows(rows, config, 0)) <= 2
    assert train_locally(request_of(config), rows, 0, 0).n_rows == 200


def shards(X: Array, y: Array, edges: list[int]) -> list[CsrRows]:
    parts = pairwise(edges)
    return [CsrRows(X[a:b], y[a:b], np.ones(b - a)) for a, b in parts]


def totals(config: TrainConfig, parts: list[CsrRows]) -> list[WorkerSum]:
    scale = weight_scale_for(float(sum(part.n_rows for part in parts)))
    job = request_of(config)
    return [
        run_worker([job], part, empty_rows(D), 0, number, scale)[0]
        for number, part in enumerate(parts)
    ]


def test_sums_are_the_same_bytes_in_any_order_of_merging() -> None:
    X, y = sparse_data(90)
    X[:30, :20], X[30:60, 10:30] = 0, 0
    config = replace(config_of(), n_sparse=D)
    found = totals(config, [*shards(X, y, [0, 30, 60, 80, 90]), CsrRows(X[:0], y[:0], np.ones(0))])
    seen = set()
    for order in permutations(range(5)):
        a, b, c, d, e = (found[number] for number in order)
        for merged in (
            a.merge(b).merge(c).merge(d).merge(e),
            a.merge(b.merge(c.merge(d.merge(e)))),
            a.merge(b).merge(c.merge(d)).merge(e),
        ):
            assert merged.rows is not None
            assert merged.values is not None
            rows = merged.rows
            seen.add(
                (
                    rows.columns.tobytes(),
                    rows.values.tobytes(),
                    rows.shares.tobytes(),
                    rows.n_workers.tobytes(),
                    rows.mean().tobytes(),
                    merged.values.tobytes(),
                )
            )
    assert len(seen) == 1


def test_a_row_is_averaged_over_the_workers_that_touched_it() -> None:
    X, y = sparse_data(80)
    X[:60, 0], X[60:, 1] = 0, 0
    X[0, 2] = X[70, 2] = 1
    config = replace(config_of(), n_sparse=D)
    first, second = totals(config, shards(X, y, [0, 60, 80]))
    merged = first.merge(second).rows
    assert merged is not None
    assert first.rows is not None
    assert second.rows is not None
    mean = dict(zip(merged.columns.tolist(), merged.mean(), strict=True))
    mine = dict(zip(first.rows.columns.tolist(), first.rows.values, strict=True))
    theirs = dict(zip(second.rows.columns.tolist(), second.rows.values, strict=True))
    assert 0 not in mine
    assert 1 not in theirs
    np.testing.assert_allclose(mean[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(mean[1], mine[1], rtol=1e-6)
    np.testing.assert_allclose(mean[2], 0.75 * mine[2] + 0.25 * theirs[2], rtol=1e-5)


def test_a_worker_whose_rows_diverge_is_left_out() -> None:
    X, y = sparse_data(40)
    config = replace(config_of(), n_sparse=D)
    (good,) = totals(config, shards(X, y, [0, 40]))
    assert good.rows is not None
    assert isinstance(good.values, np.ndarray)
    for value, reason in (
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (2.0**14, "out of range"),
    ):
        values = good.rows.values.copy()
        values[3, 1] = value
        bad = WorkerSum.from_worker(good.values, good.reports[0], replace(good.rows, values=values))
        assert bad.rows is None
        assert bad.reports[0].left_out == reason
        (merged,) = merge_sums([bad], [good])
        assert merged.rows is not None
        assert merged.rows.values.tobytes() == good.rows.values.tobytes()


def fitted(
    config: TrainConfig, engine: LocalEngine, rule: str = "mean", momentum: float = 0.0
) -> FitState:
    averaging = AveragingConfig(rule=rule, momentum=momentum)
    fit = FitState(config, averaging, engine.n_workers)
    run(engine, [fit])
    return fit


def engine_of(parts: list[CsrRows], validation: CsrRows | None = None) -> LocalEngine:
    none = empty_rows(D)
    pairs = [(part, validation or none) for part in parts]
    return LocalEngine(pairs, weight_scale_for(float(sum(part.n_rows for part in parts))))


def test_one_worker_is_the_serial_loop() -> None:
    X, y = sparse_data(60)
    config = replace(config_of(max_iter=3), n_sparse=D)
    fit = fitted(config, engine_of(shards(X, y, [0, 60])))
    theta = FitState(config, AveragingConfig(), 1).current.copy()
    state = np.zeros((2, config.input_layer.dense.n_params), np.float32)
    W, others = config.input_layer.split(theta)
    state[0] = others
    job = replace(request_of(config), state=state, rows=W)
    for round_ in range(3):
        result = train_locally(job, CsrRows(X, y, np.ones(60)), round_, 0)
        W = W.copy()
        W[result.columns] = result.rows
        job = replace(job, state=result.state, rows=W, n_steps=job.n_steps + result.n_steps)
    assert fit.theta is not None
    expected = np.concatenate([W.reshape(-1), job.state[0]])
    assert fit.theta.tobytes() == expected.tobytes()


@pytest.mark.parametrize("rule", sorted(AVERAGING_RULES))
def test_rules_move_what_was_touched(rule: str) -> None:
    X, y = sparse_data(80)
    X[:, 35:] = 0
    config = replace(config_of(max_iter=4), n_sparse=D)
    fit = fitted(config, engine_of(shards(X, y, [0, 50, 80])), rule, 0.4)
    start = FitState(config, AveragingConfig(), 1).current
    assert fit.theta is not None
    before, after = (config.input_layer.split(theta)[0] for theta in (start, fit.theta))
    assert np.array_equal(after[35:], before[35:])
    assert (after[:35] != before[:35]).any(axis=1).all()
    losses = [record.loss for record in fit.history]
    assert losses[-1] < losses[0]
    record = fit.history[-1]
    assert 0 < record.agreement <= 1
    assert record.drift > 0
    assert record.step_norm > 0


def test_a_fit_goes_on_from_its_snapshot() -> None:
    X, y = sparse_data(60)
    config = replace(config_of(max_iter=4), n_sparse=D)
    averaging = AveragingConfig("nesterov", 0.3)
    saved = []
    engine = engine_of(shards(X, y, [0, 30, 60]))
    fit = FitState(config, averaging, 2, on_checkpoint=lambda f: saved.append(f.snapshot()))
    run(engine, [fit])
    other = FitState(config, averaging, 2)
    other.restore(saved[1])
    run(engine, [other])
    assert fit.theta is not None
    assert other.theta is not None
    assert fit.theta.tobytes() == other.theta.tobytes()


def test_validation_and_final_weights() -> None:
    X, y = sparse_data(90)
    config = replace(config_of(max_iter=3), n_sparse=D)
    engine = engine_of(shards(X[:60], y[:60], [0, 30, 60]), CsrRows(X[60:], y[60:], np.ones(30)))
    fit = FitState(config, AveragingConfig(final="best"), 2)
    run(engine, [fit])
    assert all(np.isfinite(record.validation_loss) for record in fit.history)
    assert fit.theta is not None
    assert np.isfinite(fit.theta).all()


def test_a_fit_whose_every_worker_diverges_says_so() -> None:
    X, y = sparse_data(30)
    config = replace(config_of(max_iter=4, step_size=1e6, schedule="constant"), n_sparse=D)
    fit = fitted(config, engine_of(shards(X * 1e4, y, [0, 15, 30])))
    assert fit.error is not None
