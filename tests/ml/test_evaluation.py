"""``model.evaluate`` against Spark's evaluators, weights included."""

from typing import Any

import numpy as np
import pytest
from models import classifier, regressor
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn import NeuralNetClassifier, NeuralNetRegressor
from sparknn.ml.evaluation import RegressionSummary
from sparknn.ml.schema import SchemaError


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(90, 2))
    labels = rng.integers(3, size=90)
    return spark.createDataFrame(
        [
            (Vectors.dense(x), float(y), float(1 + n % 3))
            for n, (x, y) in enumerate(zip(X, labels, strict=True))
        ],
        ["features", "label", "weight"],
    )


def test_a_classifier_is_measured_as_spark_does(rows: DataFrame) -> None:
    model = NeuralNetClassifier(weightCol="weight", maxIter=2, hiddenLayers=[4]).fit(rows)
    found = model.evaluate(rows)

    def spark(metric: str, **params: Any) -> float:
        evaluator = MulticlassClassificationEvaluator(
            metricName=metric, weightCol="weight", **params
        )
        return float(evaluator.evaluate(found.predictions))

    assert found.accuracy == pytest.approx(spark("accuracy"))
    assert found.weightedPrecision == pytest.approx(spark("weightedPrecision"))
    assert found.weightedRecall == pytest.approx(spark("weightedRecall"))
    assert found.weightedFMeasure == pytest.approx(spark("f1"))
    assert found.logLoss == pytest.approx(spark("logLoss"))
    by_label = spark("precisionByLabel", metricLabel=1.0), spark("recallByLabel", metricLabel=1.0)
    assert (found.precisionByLabel[1], found.recallByLabel[1]) == pytest.approx(by_label)


def test_a_regression_is_measured_as_spark_does(rows: DataFrame) -> None:
    found = NeuralNetRegressor(maxIter=2, hiddenLayers=[4]).fit(rows).evaluate(rows)

    def spark(metric: str) -> float:
        return float(RegressionEvaluator(metricName=metric).evaluate(found.predictions))

    assert found.rootMeanSquaredError == pytest.approx(spark("rmse"))
    assert found.meanAbsoluteError == pytest.approx(spark("mae"))
    assert found.r2 == pytest.approx(spark("r2"))


def test_a_weighted_r2_counts_rows_of_weight_two_twice(rows: DataFrame) -> None:
    twice = NeuralNetRegressor(maxIter=2, hiddenLayers=[4], weightCol="weight").fit(rows)
    repeated = rows.union(rows.where("weight > 1")).union(rows.where("weight > 2"))
    plain = twice.copy()
    plain.clear(plain.weightCol)
    assert twice.evaluate(rows).r2 == pytest.approx(plain.evaluate(repeated).r2)


def test_a_weighted_r2_of_labels_far_from_0(spark: SparkSession) -> None:
    y = 1e12 + 1e3 * np.random.default_rng(0).normal(size=50)
    pairs = [(float(label), float(label + 10), 2.0) for label in y]
    predicted = spark.createDataFrame(pairs, "label double, prediction double, weight double")
    weighted = RegressionSummary(predicted, "label", "prediction", "weight").r2
    assert weighted == pytest.approx(1 - 100 / y.var(), rel=1e-6)


def test_rows_without_labels_are_refused(rows: DataFrame) -> None:
    model = NeuralNetClassifier(maxIter=1, hiddenLayers=[]).fit(rows)
    with pytest.raises(SchemaError, match="label"):
        model.evaluate(rows.drop("label"))


def test_rows_without_a_prediction_or_weight_do_not_count(rows: DataFrame) -> None:
    """``vector_to_array`` fails at null, and Spark 4 at a division by a sum of 0."""
    some = rows.where("weight > 1")
    nulls = rows.withColumn("features", F.when(F.col("weight") > 1, F.col("features")))
    model = classifier(2, 3)
    model.setHandleInvalid("keep")
    found, expected = model.evaluate(nulls), model.evaluate(some)
    assert (found.accuracy, found.logLoss) == (expected.accuracy, pytest.approx(expected.logLoss))
    pairs = F.array("label", F.lit(1.0))
    several = regressor(2, 2)
    several.setHandleInvalid("keep")
    found, expected = (several.evaluate(each.withColumn("label", pairs)) for each in (nulls, some))
    assert found.targets["count"].tolist() == [60, 60]
    assert found.meanSquaredError == pytest.approx(expected.meanSquaredError)
    one = regressor(2, 1)
    one.set(one.weightCol, "weight")
    assert np.isnan(one.evaluate(rows.withColumn("weight", F.lit(0.0))).r2)
