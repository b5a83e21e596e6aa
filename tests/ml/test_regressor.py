"""The regressor: losses, several targets, and units."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import curve

from sparknn import NeuralNetRegressionModel, NeuralNetRegressor

X = curve(500)[0]
TARGETS = np.sin(X @ np.array([[0.5, 0.4], [-0.3, 0.6], [0.4, 0.0], [0.2, -0.5]]))
# Far from 0 and far from 1, as house prices are.
Y = 20_000 * TARGETS[:, 0] + 300_000


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    frame = table(spark, X, Y, held_out=np.arange(500) % 5 == 0).cache()
    yield frame
    frame.unpersist()


def small(**params: Any) -> NeuralNetRegressor:
    return NeuralNetRegressor(**{"hiddenLayers": [20], "maxIter": 6, "numWorkers": 2, **params})


@pytest.fixture(scope="module")
def model(rows: DataFrame) -> NeuralNetRegressionModel:
    return small(validationIndicatorCol="held_out").fit(rows)


def r2(predicted: Any, expected: Any) -> float:
    return float(
        1 - ((predicted - expected) ** 2).sum() / ((expected - expected.mean(0)) ** 2).sum()
    )


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        *((1e38, "Divide"), (1e45, "Divide"), (1e-42, "Multiply")),
    ],
)
def test_labels_near_the_ends_of_float32_are_refused(
    spark: SparkSession, size: float, hint: str
) -> None:
    with pytest.raises(ValueError, match=rf"Labels in column 'label' are about .*{hint}"):
        small(maxIter=1).fit(table(spark, X[:20], size * TARGETS[:20, 0]))


LOSSES = ("squared", "absolute", "huber")


def test_losses(rows: DataFrame) -> None:
    estimator = small()
    for loss, model in zip(
        LOSSES, estimator.fit(rows, [{estimator.loss: loss} for loss in LOSSES]), strict=True
    ):
        assert model.getLoss() == loss
        assert r2(model.toLocal().predict(X), Y) > 0.7


def test_each_loss_has_its_own_minimum(spark: SparkSession) -> None:
    """Of targets that are independent of the features: 0, and 10 for a fifth of the rows.

    Their mean is 2 and their median 0. Huber's loss turns straight at one deviation, 4, and is
    smallest where the pulls are even: 0.8 m = 0.2 * 4.
    """
    y = np.where(np.arange(500) % 5 == 0, 10.0, 0.0)
    estimator = small(hiddenLayers=[], maxIter=20)
    models = estimator.fit(table(spark, X, y), [{estimator.loss: loss} for loss in LOSSES])
    medians = [np.median(model.toLocal().predict(X)) for model in models]
    np.testing.assert_allclose(medians, [2.0, 0.0, 1.0], atol=0.3)


def test_the_validation_metric_is_in_units_of_the_label(
    model: NeuralNetRegressionModel, rows: DataFrame
) -> None:
    history = model.summary.history
    best = history["validation_loss"].idxmin()
    predicted = model.transform(rows.where("held_out"))
    assert RegressionEvaluator(metricName="mse").evaluate(predicted) == pytest.approx(
        history["validation_metric"][best], rel=1e-3
    )


def test_a_fit_goes_by_a_metric_as_sparks_evaluator_defines_it(rows: DataFrame) -> None:
    estimator = small(validationIndicatorCol="held_out", finalWeights="last", maxIter=2)
    names = ["rmse", "r2"]
    models = estimator.fit(rows, [{estimator.validationMetric: name} for name in names])
    for name, fitted in zip(names, models, strict=True):
        found = fitted.summary.history["validation_metric"].iloc[-1]
        predicted = fitted.transform(rows.where("held_out"))
        expected = RegressionEvaluator(metricName=name).evaluate(predicted)
        assert found == pytest.approx(expected, rel=1e-4)


def test_one_validation_row_does_not_choose_the_round(spark: SparkSession) -> None:
    """An outlier, on the side to which the first networks err, decides the validation loss."""
    y = X @ np.arange(1.0, X.shape[1] + 1)
    validation = np.arange(len(y)) % 10 == 0
    y[10] += 100
    rows = table(spark, X, y, validation=validation)
    estimator = small(validationIndicatorCol="validation", maxIter=8)
    by_rule, last = estimator.fit(rows, [{}, {estimator.finalWeights: "last"}])
    assert by_rule.summary.history["validation_loss"].idxmin() < 7
    np.testing.assert_array_equal(by_rule.theta, last.theta)


def test_several_targets(spark: SparkSession) -> None:
    targets = TARGETS * [1, 1000] + [5, -4000]
    frame = table(spark, X, targets)
    model = small().fit(frame)
    assert (model.numFeatures, model.layers[1:]) == (4, [20, 2])
    predicted = np.array([row.prediction.toArray() for row in model.transform(frame).collect()])
    assert r2(predicted[:, 0], targets[:, 0]) > 0.7
    assert r2(predicted[:, 1], targets[:, 1]) > 0.7


@pytest.mark.parametrize("value", [7.0, 1e-6, -3e5, 0.0])
def test_a_constant_target_is_predicted(spark: SparkSession, value: float) -> None:
    frame = table(spark, X[:100], np.full(100, value), held_out=np.arange(100) % 5 == 0)
    model = small(maxIter=2, validationIndicatorCol="held_out").fit(frame)
    assert (model.toLocal().predict(X) == np.float32(value)).all()
    assert (model.summary.history["validation_metric"] == 0).all()


def test_a_constant_component_is_predicted(spark: SparkSession) -> None:
    targets = np.column_stack([TARGETS[:, 0], np.full(len(X), 0.1)])
    predicted = small().fit(table(spark, X, targets)).toLocal().predict(X)
    assert (predicted[:, 1] == np.float32(0.1)).all()
    assert r2(predicted[:, 0], targets[:, 0]) > 0.7


def test_whole_numbers_are_targets_too(rows: DataFrame) -> None:
    frame = rows.selectExpr("features", "cast(-label as long) as label")
    assert small(maxIter=1).fit(frame).layers[1:] == [20, 1]


def test_warm_start_begins_with_the_same_function(
    model: NeuralNetRegressionModel, spark: SparkSession
) -> None:
    """Also on data of another mean and scale."""
    other = table(spark, 3 * X[:100] + 2, Y[:100] / 5)
    again = small(initialModel=model, maxIter=1, stepSize=1e-12).fit(other)
    one, two = (fitted.toLocal().predict(X) for fitted in (model, again))
    np.testing.assert_allclose(one, two, rtol=1e-4)
