"""Features and targets that are far from 0 for how much they vary."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import network_for, outcome, plain_engine, shards, spec, trained, vectors
from pyspark.sql import SparkSession
from tables import accuracy, array, sparse, table
from toys import blobs, curve

from sparknn import (
    NeuralNetClassifier,
    NeuralNetRegressionModel,
    NeuralNetRegressor,
)
from sparknn.core.config import TrainConfig
from sparknn.engine.rdd import RddEngine

N = 600
CLASSES_X, CLASSES = blobs(N)
CURVE_X = curve(N)[0]
CURVE = np.sin(CURVE_X @ np.array([[0.5, 0.4], [-0.3, 0.6], [0.4, 0.0], [0.2, -0.5]]))
OFFSETS = (1e6, -1e9, 1e12)
# Only the first three columns are moved.
MOVED = np.array([1.0, 1.0, 1.0, 0.0])


def classifier(**params: Any) -> NeuralNetClassifier:
    return NeuralNetClassifier(
        **{"hiddenLayers": [16], "maxIter": 6, "numWorkers": 2, "seed": 1, **params}
    )


def regressor(**params: Any) -> NeuralNetRegressor:
    return NeuralNetRegressor(
        **{"hiddenLayers": [16], "maxIter": 12, "numWorkers": 2, "seed": 1, **params}
    )


def r2(predicted: Any, expected: Any) -> float:
    errors = np.square(predicted - expected).sum()
    return float(1 - errors / np.square(expected - expected.mean(0)).sum())


def far(X: Any, offset: float) -> Any:
    return X.astype(np.float64) + offset * MOVED


@pytest.fixture(scope="module")
def plain_accuracy(spark: SparkSession) -> float:
    rows = table(spark, CLASSES_X.astype(np.float64), CLASSES)
    return accuracy(classifier().fit(rows).transform(rows))


@pytest.mark.parametrize("offset", OFFSETS)
def test_an_offset_of_features_costs_no_accuracy(
    spark: SparkSession, plain_accuracy: float, offset: float
) -> None:
    X = far(CLASSES_X, offset)
    rows = table(spark, X, CLASSES, array if offset < 0 else sparse)
    model = classifier().fit(rows)
    scores = model.transform(rows)
    assert plain_accuracy > 0.8
    assert accuracy(scores) == pytest.approx(plain_accuracy, abs=0.01)
    found = np.array([row.prediction for row in scores.select("prediction").collect()])
    local = model.toLocal()
    assert np.array_equal(local.predict(X), found)
    assert np.array_equal(pickle.loads(pickle.dumps(local)).predict(X), found)
    assert model.predict(X[0]) == found[0]


@pytest.mark.parametrize("k", [1, 2])
def test_an_offset_of_features_and_targets_costs_no_r2(spark: SparkSession, k: int) -> None:
    def fitted(X: Any, Y: Any) -> float:
        y = Y[:, 0] if k == 1 else Y
        return r2(regressor().fit(table(spark, X, y)).toLocal().predict(X), y)

    Y = CURVE + np.array([0.0, 7.0])
    expected = fitted(CURVE_X.astype(np.float64), Y)
    assert expected > 0.7
    for offset in OFFSETS:
        both = fitted(far(CURVE_X, offset), Y + offset * np.array([1.0, 0.0]))
        assert both == pytest.approx(expected, abs=0.01), offset


def test_a_saved_model_keeps_its_offsets(spark: SparkSession, tmp_path: Path) -> None:
    X, y = far(CURVE_X, 1e9), CURVE[:, 0] + 1e9
    model = regressor(maxIter=2).fit(table(spark, X, y))
    model.save(str(tmp_path / "model"))
    again = NeuralNetRegressionModel.load(str(tmp_path / "model"))
    assert np.array_equal(again.toLocal().predict(X), model.toLocal().predict(X))
    assert np.flatnonzero(again.toLocal().input_offset).tolist() == [0, 1, 2]
    (part,) = (tmp_path / "model" / "metadata").glob("part-*")
    assert '"formatVersion": 2' in part.read_text()


def test_a_warm_start_continues_whatever_the_offsets(spark: SparkSession) -> None:
    """A step size of almost 0 shows the function that the fit begins with."""
    X, y = far(CURVE_X, 1e9), CURVE[:, 0] + 1e9
    first = regressor().fit(table(spark, X, y))
    still = regressor(maxIter=1, stepSize=1e-9, initialModel=first)
    # Other rows have another offset.
    low = np.argsort(X[:, 0])[:300]
    again = still.fit(table(spark, X[low] + 300, y[low] - 5))
    assert not np.array_equal(again.toLocal().input_offset, first.toLocal().input_offset)
    gap = again.toLocal().predict(X) - first.toLocal().predict(X)
    assert np.abs(gap).max() < 1e-3


def test_a_column_must_be_far_in_all_partitions(spark: SparkSession) -> None:
    X = CLASSES_X.astype(np.float64)
    X[:300, 0] += 1e9
    X[:, 1] = 2e9 + 1e9 * X[:, 1]
    # Constant, and far.
    X[:, 2] = 1e9
    X[:, 3] += 1e9
    found = []
    for sizes in ([300, 300], [100, 0, 400, 100]):
        with RddEngine(vectors(spark, X, CLASSES, sizes), spec(center=True)) as engine:
            found.append(engine.info.input_offset)
            assert max(np.abs(rows.read(0, 1).X[:, 3]).max() for rows, _ in shards(engine)) < 100
    for offset in found:
        assert offset is not None
        assert np.flatnonzero(offset).tolist() == [2, 3]
    assert np.array_equal(found[0], found[1])


def test_engines_give_the_same_bytes(spark: SparkSession) -> None:
    rows = vectors(spark, far(CLASSES_X, 1e9), CLASSES, [200, 400])
    with RddEngine(rows, spec(center=True)) as engine:
        configs = [TrainConfig(network_for(engine.info), max_iter=2)]
        assert outcome(trained(engine, configs)) == outcome(trained(plain_engine(engine), configs))


def test_without_standardization_features_are_raw(spark: SparkSession) -> None:
    rows = table(spark, far(CLASSES_X, 1e6), CLASSES)
    model = classifier(standardization=False, maxIter=1, stepSize=1e-12).fit(rows)
    assert model.toLocal().input_offset is None


def test_one_line_is_logged_and_ordinary_columns_are_read_once(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sparknn")
    X = CLASSES_X.astype(np.float64)
    X[:, 0], X[:, 1] = 1.0, 0.5
    model = classifier(maxIter=1).fit(table(spark, X, CLASSES))
    assert "reading the rows again" not in caplog.text
    assert model.toLocal().input_offset is None
    classifier(maxIter=1).fit(table(spark, far(CLASSES_X, 1e9), CLASSES))
    assert caplog.text.count("3 of 4 features in column 'features' vary too little") == 1
