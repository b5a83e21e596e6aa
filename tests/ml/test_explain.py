"""Models explain their predictions: contributions in transform, and importances of features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import classifier
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from tables import array, sparse, table

from sparknn import (
    NeuralNetClassificationModel,
    NeuralNetClassifier,
    NeuralNetRegressionModel,
    NeuralNetRegressor,
)
from sparknn.ml.explain import Explanation
from sparknn.ml.schema import SchemaError

Array = np.ndarray[Any, Any]
QUICK: dict[str, Any] = {"hiddenLayers": [8], "maxIter": 5, "numWorkers": 2, "seed": 1}
RNG = np.random.default_rng(0)
X = np.column_stack([RNG.normal(size=(400, 3)), RNG.integers(4, size=400)])
LABELS = ((X[:, 1] > 0) | (X[:, 3] == 2)).astype(float)


@pytest.fixture(scope="module")
def model(spark: SparkSession) -> NeuralNetClassificationModel:
    """Of encoded features: numbers by pieces, and a category."""
    estimator = NeuralNetClassifier(
        categoricalFeatures=[3], contributionsCol="why", handleInvalid="keep", **QUICK
    )
    return estimator.fit(table(spark, X, LABELS))


def explained(rows: DataFrame) -> Array:
    return np.array([row.why for row in rows.select("why").collect()])


def test_a_column_of_contributions(
    spark: SparkSession, model: NeuralNetClassificationModel
) -> None:
    predicted = model.transform(table(spark, X[:50], LABELS[:50]))
    assert predicted.schema["why"].dataType.simpleString() == "array<array<double>>"
    found = explained(predicted)
    np.testing.assert_array_equal(found, model.toLocal().contributions(X[:50]))
    raw = np.array([row.rawPrediction.toArray() for row in predicted.collect()])
    gaps = raw - found.sum(axis=2)
    np.testing.assert_allclose(gaps, np.broadcast_to(gaps[0], gaps.shape), atol=1e-5)
    # On average, the inputs of training rows are their mean: some contributions are negative.
    assert (found > 0).any()
    assert (found < 0).any()
    assert (
        "why"
        not in model.copy({model.contributionsCol: ""}).transform(predicted[["features"]]).columns
    )


def test_rows_without_a_prediction(
    spark: SparkSession, model: NeuralNetClassificationModel
) -> None:
    bad = X[:3].copy()
    bad[1, 0] = np.inf
    kept = model.copy({model.handleInvalid: "keep"})
    found = [row.why for row in kept.transform(table(spark, bad, LABELS[:3])).collect()]
    assert [why is None for why in found] == [False, True, False]
    kept.setHandleInvalid("skip")
    assert explained(kept.transform(table(spark, bad, LABELS[:3]))).shape == (2, 2, 4)


def test_the_features_that_matter_are_important(
    model: NeuralNetClassificationModel, tmp_path: Path
) -> None:
    found = model.featureImportances.toArray()
    assert found.sum() == pytest.approx(1)
    assert set(np.argsort(found)[2:]) == {1, 3}
    model.save(str(tmp_path / "model"))
    loaded = NeuralNetClassificationModel.load(str(tmp_path / "model"))
    assert loaded.featureImportances == model.featureImportances
    assert loaded.getContributionsCol() == "why"
    same = loaded.toLocal().contributions(X), model.toLocal().contributions(X)
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("standardization", [True, False])
def test_plain_features_and_several_targets(spark: SparkSession, standardization: bool) -> None:
    rows = X[:200, :3] + (np.array([0, 0, 1e9]) if standardization else 0)
    y = np.column_stack([X[:200, 1], 1e6 + 1e3 * X[:200, 1]])
    estimator = NeuralNetRegressor(
        numericEncoding="plain", standardization=standardization, contributionsCol="why", **QUICK
    )
    model = estimator.fit(table(spark, rows, y, array))
    assert isinstance(model, NeuralNetRegressionModel)
    local = model.toLocal()
    mean = rows.mean(axis=0)
    gain = local.predict_raw(rows) - local.predict_raw(mean[None])
    found = explained(model.transform(table(spark, rows[:20], y[:20], array)))
    np.testing.assert_allclose(found.sum(axis=2) / [1, 1e3], gain[:20] / [1, 1e3], atol=1e-3)
    assert model.featureImportances.argmax() == 1


def test_sparse_rows_have_contributions_only(spark: SparkSession) -> None:
    wide = np.zeros((40, 2100))
    wide[np.arange(40), np.arange(40) % 5] = 1
    y = np.arange(40) % 2.0
    model = NeuralNetClassifier(contributionsCol="why", **QUICK).fit(table(spark, wide, y, sparse))
    found = explained(model.transform(table(spark, wide[:3], y[:3], sparse)))
    assert found.shape == (3, 2, 2100)
    # From a row of zeros.
    assert np.flatnonzero(found[1, 0]).tolist() == [1]
    with pytest.raises(RuntimeError, match="on dense rows"):
        _ = model.featureImportances


def test_the_column_must_be_free(spark: SparkSession) -> None:
    frame = table(spark, X[:20], LABELS[:20])
    with pytest.raises(SchemaError, match="'label' already exists"):
        NeuralNetClassifier(contributionsCol="label").fit(frame)


def test_a_model_without_a_baseline_says_so(spark: SparkSession) -> None:
    bare = classifier(4, 3, 2)
    with pytest.raises(RuntimeError, match="no feature importances"):
        _ = bare.featureImportances
    bare.setContributionsCol("why")
    with pytest.raises(ValueError, match="Fit it again"):
        bare.transform(spark.createDataFrame([(Vectors.dense(range(4)),)], ["features"]))


@pytest.mark.parametrize(
    "damage",
    [
        {"importances": [1.0]},
        {"importances": [float("nan")] * 4},
        {"baseline": {"indices": [9], "values": [1.0]}},
        {"baseline": {"indices": [0]}},
    ],
)
def test_a_damaged_explanation(damage: dict[str, Any]) -> None:
    saved = Explanation(np.float32([0, 1, 0]), np.array([0.25, 0.75, 0, 0])).to_json()
    assert Explanation.from_json(saved, 3, 4).baseline.tolist() == [0, 1, 0]
    with pytest.raises((KeyError, IndexError, TypeError, ValueError)):
        Explanation.from_json({**saved, **damage}, 3, 4)
