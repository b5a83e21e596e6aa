"""Fits on encoded rows through the local engine, and the penalty that follows the loss."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toys import Array, blobs, engine_of

from sparknn.core.config import AveragingConfig, Standardizer, TrainConfig
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.predictor import LocalPredictor
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run

N_VALUES = 80


def encoding_of(*, embeds: bool, number: bool = True) -> Encoding:
    """Two features: a number in two pieces, and a category."""
    category = np.array([[1, N_VALUES]], dtype=np.intp)
    none, m = np.empty((0, 2), dtype=np.intp), 3 * number
    return Encoding(
        2,
        np.zeros(m, dtype=np.intp),
        np.array([-2, 0, 0], dtype=np.float32)[:m],
        np.array([0.5, 0.5, 1], dtype=np.float32)[:m],
        np.array([0, 0, -3], dtype=np.float32)[:m],
        np.array([1, 1, 3], dtype=np.float32)[:m],
        None,
        np.empty(0, dtype=np.intp),
        none if embeds else category,
        category if embeds else none,
    )


def category_rows(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Classes that a category decides, but for rows in which the number is large."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=n), rng.integers(N_VALUES, size=n)]).astype(np.float32)
    y = (X[:, 1] * 7 % 3).astype(np.float64)
    y[X[:, 0] > 1] = 2
    return X, y


def config_of(encoding: Encoding, **changes: Any) -> TrainConfig:
    network = Network((encoding.n_embedded + encoding.n_dense, 12, 3))
    plain: dict[str, Any] = {"batch_size": 32, "max_iter": 12, "seed": 1, "local_epochs": 2}
    return TrainConfig(
        network, encoding=encoding, n_sparse=encoding.n_embedded, **(plain | changes)
    )


def fitted(config: TrainConfig, X: Array, y: Array, sizes: list[int], **changes: Any) -> FitState:
    fit = FitState(config, AveragingConfig(), len(sizes))
    run(engine_of(X, y, sizes, **changes), [fit])
    assert fit.theta is not None
    return fit


def predictor_of(fit: FitState) -> LocalPredictor:
    assert fit.theta is not None
    return LocalPredictor(fit.config.network, fit.theta, encoding=fit.config.encoding)


def weights_of_values(fit: FitState) -> Array:
    assert fit.theta is not None
    return fit.config.input_layer.split(fit.theta)[0]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_embedded_categories_learn_what_one_hot_ones_do(solver: str) -> None:
    X, y = category_rows(1200)
    test, truth = category_rows(600, seed=1)
    step = {"adam": 0.01, "adamw": 0.01, "sgd": 0.5}.get(solver, 0.2)
    found = []
    for embeds in (True, False):
        config = config_of(encoding_of(embeds=embeds), solver=solver, step_size=step)
        predictor = predictor_of(fitted(config, X, y, [600, 600]))
        assert (predictor.predict(test) == truth).mean() > 0.95
        found.append(predictor.predict_proba(test))
    assert np.abs(found[0] - found[1]).mean() < 0.06


def test_workers_that_see_different_values() -> None:
    X, y = category_rows(1500)
    X[X[:, 1] == 3, 1] = 4
    y[X[:, 1] == 4] = 4 * 7 % 3
    order = np.argsort(X[:, 1], kind="stable")
    X, y = X[order], y[order]
    half = int(np.searchsorted(X[:, 1], N_VALUES // 2))
    fit = fitted(config_of(encoding_of(embeds=True)), X, y, [half, len(X) - half])
    predictor = predictor_of(fit)
    for part in (slice(0, half), slice(half, None)):
        assert (predictor.predict(X[part]) == y[part]).mean() > 0.9
    W = weights_of_values(fit)
    # What no row has stays at 0, like values that are not known at all.
    assert not W[3].any()
    assert np.delete(W, 3, axis=0).any(axis=1).all()
    unseen, unknown = [[0.5, 3]], [[0.5, -7]]
    assert np.array_equal(predictor.predict_raw(unseen), predictor.predict_raw(unknown))


def test_embedded_categories_alone() -> None:
    X, y = category_rows(1200)
    y = (X[:, 1] * 7 % 3).astype(np.float64)
    fit = fitted(config_of(encoding_of(embeds=True, number=False)), X, y, [700, 500])
    predictor = predictor_of(fit)
    assert (predictor.predict(X) == y).mean() > 0.95
    assert np.isfinite(predictor.predict_raw([[0, -1], [0, np.nan]])).all()


def test_a_standardised_fit_folds_into_one_of_plain_inputs() -> None:
    """Standardising the inputs by 0 and 1 changes nothing."""
    X, y = category_rows(400)
    config = config_of(encoding_of(embeds=True), max_iter=2)
    n = config.network.layers[0]
    neutral = Standardizer(np.zeros(n, np.float32), np.ones(n, np.float32))
    plain = fitted(config, X, y, [200, 200])
    same = fitted(replace(config, standardizer=neutral), X, y, [200, 200])
    assert plain.theta is not None
    assert same.theta is not None
    assert plain.theta.tobytes() == same.theta.tobytes()


def test_validation_rows_are_encoded() -> None:
    X, y = category_rows(900)
    config = config_of(encoding_of(embeds=True), max_iter=3)
    fit = fitted(config, X[:600], y[:600], [300, 300], validation=(X[600:], y[600:]))
    predictor = predictor_of(fit)
    raw = predictor.predict_raw(X[600:])
    expected = fit.config.network.loss_fn.values(raw, y[600:].astype(np.intp)).mean()
    assert fit.history[-1].validation_loss == pytest.approx(float(expected), rel=1e-4)


# The penalty


def blob_config(**changes: Any) -> TrainConfig:
    return TrainConfig(Network((4, 6, 3)), max_iter=4, batch_size=16, **changes)


def factors_of(config: TrainConfig, n_rounds: int = 4) -> tuple[list[float], list[float]]:
    """Penalty factors and losses of all rounds."""
    X, y = blobs(120)
    seen = [FitState(config, AveragingConfig(), 2).penalty_factor]
    fit = FitState(config, AveragingConfig(), 2)
    fit.on_round_end = lambda fit, _: seen.append(fit.request().penalty_factor)
    run(engine_of(X, y, [60, 60]), [fit])
    return seen, [record.loss for record in fit.history]


def test_the_penalty_is_the_last_loss_relative_to_that_of_a_constant() -> None:
    seen, losses = factors_of(blob_config(null_loss=float(np.log(3)), l2=0.01))
    assert seen[0] == 1
    assert seen[1:] == [min(1.0, loss / np.log(3)) for loss in losses]
    assert seen[-1] < seen[1] <= 1


def test_without_a_null_loss_the_penalty_is_fixed() -> None:
    assert set(factors_of(blob_config(l2=0.01))[0]) == {1.0}


def test_the_penalty_never_grows_beyond_what_is_set() -> None:
    assert set(factors_of(blob_config(l2=0.01, null_loss=1e-6))[0]) == {1.0}


def test_the_factor_multiplies_the_penalty() -> None:
    """Two fits of one round: half the penalty, or the penalty and a factor of a half."""
    X, y = blobs(80)
    thetas = []
    for l2, factor in ((0.4, 0.5), (0.2, 1.0), (0.4, 1.0)):
        fit = FitState(blob_config(l2=l2), AveragingConfig(), 1)
        request = replace(fit.request(), penalty_factor=factor)
        (total,) = engine_of(X, y, [80]).run_round([request], 0).totals
        thetas.append(total.mean()[0].tobytes())
    assert thetas[0] == thetas[1] != thetas[2]


def test_a_loss_that_is_not_finite_leaves_the_penalty() -> None:
    fit = FitState(blob_config(null_loss=1.0), AveragingConfig(), 1)
    X, y = blobs(60)
    run(engine_of(X, y, [60]), [fit])
    fit.history[-1] = replace(fit.history[-1], loss=float("nan"))
    assert fit.penalty_factor == 1


@pytest.mark.parametrize("embeds", [False, True])
def test_a_fit_goes_on_from_its_snapshot(embeds: bool) -> None:
    X, y = category_rows(300)
    config = config_of(encoding_of(embeds=embeds), max_iter=4, l2=0.01, null_loss=1.1)
    saved = []
    engine = engine_of(X, y, [150, 150])
    fit = FitState(config, AveragingConfig(), 2)
    fit.on_checkpoint = lambda fit: saved.append((fit.snapshot(), fit.penalty_factor))
    run(engine, [fit])
    snapshot, factor = saved[1]
    assert factor < 1
    other = FitState(config, AveragingConfig(), 2)
    other.restore(snapshot)
    assert other.penalty_factor == factor
    assert other.request().penalty_factor == factor
    run(engine, [other])
    assert fit.theta is not None
    assert other.theta is not None
    assert fit.theta.tobytes() == other.theta.tobytes()


def test_a_saved_encoding_predicts_the_same() -> None:
    X, y = category_rows(300)
    fit = fitted(config_of(encoding_of(embeds=True), max_iter=2), X, y, [300])
    predictor = predictor_of(fit)
    assert predictor.encoding is not None
    again = Encoding.from_json(json.loads(json.dumps(predictor.encoding.to_json())))
    other = replace(predictor, encoding=again)
    assert other.predict_raw(X).tobytes() == predictor.predict_raw(X).tobytes()


def test_rows_are_predicted_alone_as_among_others() -> None:
    X, y = category_rows(300)
    predictor = predictor_of(
        fitted(config_of(encoding_of(embeds=True), max_iter=2), X, y, [150, 150])
    )
    together = predictor.predict_raw(X)
    assert all(
        predictor.predict_raw(X[i : i + 1]).tobytes() == together[i : i + 1].tobytes()
        for i in range(0, 300, 7)
    )
    assert predictor.predict_raw(X[::-1])[::-1].tobytes() == together.tobytes()


def test_two_fits_with_different_encodings_share_rounds_and_not_batches() -> None:
    X, y = category_rows(300)
    configs = [config_of(encoding_of(embeds=embeds), max_iter=3) for embeds in (True, False)]
    fits = [FitState(config, AveragingConfig(), 2) for config in configs]
    run(engine_of(X, y, [150, 150]), fits)
    for together, config in zip(fits, configs, strict=True):
        alone = fitted(config, X, y, [150, 150])
        assert together.theta is not None
        assert alone.theta is not None
        assert together.theta.tobytes() == alone.theta.tobytes()
