"""Code for Spark's MultilayerPerceptronClassifier, with another import."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyspark.ml.classification as of_spark
import pytest
from pyspark.sql import DataFrame, SparkSession
from tables import accuracy, table
from toys import blobs

from sparknn import MultilayerPerceptronClassifier, NeuralNetClassificationModel
from sparknn.ml.checked_params import ParamError

# The shape of Spark's sample_multiclass_classification_data.
X, Y = blobs(150)
PARAMS = {"layers": [4, 5, 4, 3], "blockSize": 128, "seed": 1234}


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    frame = table(spark, X, Y).coalesce(2).cache()
    yield frame
    frame.unpersist()


@pytest.fixture(scope="module")
def theirs(rows: DataFrame) -> of_spark.MultilayerPerceptronClassificationModel:
    estimator = of_spark.MultilayerPerceptronClassifier(**PARAMS, maxIter=50, tol=1e-6)
    return estimator.setSolver("l-bfgs").fit(rows)


def test_the_same_code_learns_as_well(
    rows: DataFrame,
    theirs: of_spark.MultilayerPerceptronClassificationModel,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    estimator = MultilayerPerceptronClassifier(**PARAMS, tol=1e-6).setSolver("l-bfgs")
    estimator.save(str(tmp_path / "estimator"))
    estimator = MultilayerPerceptronClassifier.load(str(tmp_path / "estimator"))
    with caplog.at_level(logging.INFO, "sparknn"):
        model = estimator.setNumWorkers(2).setMaxIter(50).fit(rows)
    assert isinstance(model, NeuralNetClassificationModel)
    assert model.layers == theirs.getLayers()
    assert len(model.weights) == len(theirs.weights)
    assert accuracy(model.transform(rows)) > accuracy(theirs.transform(rows)) - 0.05
    (line,) = [each.getMessage() for each in caplog.records if "not used" in each.getMessage()]
    assert all(name in line for name in ("blockSize", "tol", "l-bfgs"))


def test_weights_are_in_sparks_order(
    rows: DataFrame, theirs: of_spark.MultilayerPerceptronClassificationModel
) -> None:
    """A step of size 1e-9 leaves the network that Spark has trained."""
    estimator = MultilayerPerceptronClassifier(
        layers=PARAMS["layers"], maxIter=1, solver="gd", stepSize=1e-9, numWorkers=1
    )
    (model,) = estimator.fit(rows, [{estimator.initialWeights: theirs.weights}])
    expected = [row.probability.toArray() for row in theirs.transform(rows).collect()]
    found = [row.probability.toArray() for row in model.transform(rows).collect()]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "layers"),
        ({"layers": [5, 3]}, "layers"),
        ({"layers": [4, 3], "initialWeights": [1.0]}, "initialWeights"),
    ],
)
def test_layers_must_fit(params: dict[str, list[float]], name: str, rows: DataFrame) -> None:
    estimator = MultilayerPerceptronClassifier(**params, maxIter=1, numWorkers=1)
    with pytest.raises(ParamError) as caught:
        estimator.fit(rows)
    assert set(caught.value.problems) == {name}
