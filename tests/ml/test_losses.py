"""Regressions by other losses: quantiles of a target, and counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import mean_pinball_loss, mean_poisson_deviance
from tables import table

from sparknn import NeuralNetRegressionModel, NeuralNetRegressor
from sparknn.engine.interface import DataError

QUICK: dict[str, Any] = {"hiddenLayers": [16], "maxIter": 8, "numWorkers": 2, "seed": 1}
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, size=(1500, 2))


def almost_nothing(estimator: Any, model: Any) -> dict[Any, Any]:
    """Params that continue from a model, in one step or two that are tiny."""
    return {estimator.initialModel: model, estimator.maxIter: 1, estimator.stepSize: 1e-12}


def test_quantiles(spark: SparkSession, tmp_path: Path) -> None:
    # Far from 0, in other units than deviations of 1.
    y = 1000 + 50 * (3 * X[:, 0] + (1.2 + X[:, 0]) * RNG.normal(size=len(X)))
    levels = [0.1, 0.5, 0.9]
    rows = table(spark, X, y)
    estimator = NeuralNetRegressor(
        loss="quantile", quantiles=levels, validationFraction=0.2, **QUICK
    )
    model = estimator.fit(rows)
    assert model.numTargets == 1
    predicted = model.transform(rows)
    found = np.array([row.prediction.toArray() for row in predicted.collect()])
    assert (np.diff(found, axis=1) >= 0).all()
    for level, guess in zip(levels, found.T, strict=True):
        assert abs((y < guess).mean() - level) < 0.06
        # Better than the same quantile for every row.
        assert mean_pinball_loss(y, guess, alpha=level) < 0.95 * mean_pinball_loss(
            y, np.full(len(y), np.quantile(y, level)), alpha=level
        )
    measured = model.evaluate(rows)
    each = [mean_pinball_loss(y, g, alpha=a) for g, a in zip(found.T, levels, strict=True)]
    assert measured.targets["pinball"].to_dict() == pytest.approx(
        dict(zip(levels, each, strict=True))
    )
    assert measured.meanPinballLoss == pytest.approx(np.mean(each))
    # Of a fifth of these rows, which were held out.
    metric = model.summary.history["validation_metric"].iloc[-1]
    assert metric == pytest.approx(np.mean(each), rel=0.15)
    model.save(str(tmp_path / "model"))
    loaded = NeuralNetRegressionModel.load(str(tmp_path / "model"))
    assert loaded.toLocal().predict(X).tobytes() == found.tobytes()
    continued = estimator.copy(almost_nothing(estimator, model)).fit(rows)
    np.testing.assert_allclose(continued.toLocal().predict(X), found, rtol=1e-3)


def test_counts(spark: SparkSession) -> None:
    y = RNG.poisson(np.exp(3 + X[:, 0])).astype(float)
    rows = table(spark, X, y)
    estimator = NeuralNetRegressor(loss="poisson", **QUICK)
    model = estimator.fit(rows)
    found = model.toLocal().predict(X)
    assert found.min() > 0
    assert np.corrcoef(np.log(found), X[:, 0])[0, 1] > 0.98
    deviance = mean_poisson_deviance(y, found)
    assert deviance < 1.1 * mean_poisson_deviance(y, np.exp(3 + X[:, 0]))
    assert model.evaluate(rows).meanPoissonDeviance == pytest.approx(deviance)
    continued = estimator.copy(almost_nothing(estimator, model)).fit(rows)
    np.testing.assert_allclose(continued.toLocal().predict(X), found, rtol=1e-3)
    with pytest.raises(ValueError, match="'poisson'; this fit has loss 'squared'"):
        NeuralNetRegressor(initialModel=model, **QUICK).fit(rows)


def test_targets_that_do_not_fit_the_loss(spark: SparkSession) -> None:
    with pytest.raises(DataError, match="expects counts"):
        NeuralNetRegressor(loss="poisson", **QUICK).fit(table(spark, X[:20], X[:20, 0]))
    with pytest.raises(DataError, match="expects one"):
        NeuralNetRegressor(loss="quantile", **QUICK).fit(table(spark, X[:20], X[:20]))
