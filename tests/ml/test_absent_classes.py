"""Classes that the rows of a fit lack: declared by thresholds, numClasses or OneVsRest."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pyspark.ml.classification import OneVsRest
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import CrossValidator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from tables import accuracy, table
from toys import blobs

import sparknn.ml.fit as train_module
from sparknn import NeuralNetClassifier
from sparknn.engine.interface import DataError
from sparknn.ml.checked_params import ParamError

X, Y = blobs(120, k=4)


def small(**params: Any) -> NeuralNetClassifier:
    return NeuralNetClassifier(**{"hiddenLayers": [6], "maxIter": 2, "numWorkers": 2, **params})


def folded(spark: SparkSession, rare: int) -> DataFrame:
    """Two folds, of which only the second has a few rows of class ``rare``."""
    few = (rare != Y) | (np.cumsum(rare == Y) <= 4)
    fold = np.where(rare == Y, 1, np.arange(len(Y)) % 2)
    return table(spark, X[few], Y[few], fold=fold[few])


@pytest.fixture(scope="module")
def rare_top(spark: SparkSession) -> Iterator[DataFrame]:
    frame = folded(spark, 3).cache()
    yield frame
    frame.unpersist()


def searched(estimator: Any, data: DataFrame, metric: str) -> Any:
    return CrossValidator(
        estimator=estimator,
        estimatorParamMaps=[{}],
        evaluator=MulticlassClassificationEvaluator(metricName=metric),
        numFolds=2,
        foldCol="fold",
        collectSubModels=True,
    ).fit(data)


def test_num_classes_in_a_cross_validator(rare_top: DataFrame) -> None:
    """The loss of a row needs the probability of its class."""
    model = searched(small(numClasses=4), rare_top, "logLoss")
    assert [fold[0].numClasses for fold in model.subModels] == [4, 4]
    assert np.isfinite(model.avgMetrics).all()


def test_thresholds_in_a_cross_validator(rare_top: DataFrame) -> None:
    model = searched(small(thresholds=[0.2, 0.3, 0.3, 0.2]), rare_top, "accuracy")
    assert [fold[0].numClasses for fold in model.subModels] == [4, 4]
    assert model.avgMetrics[0] > 0.5


def test_one_vs_rest_in_a_cross_validator(spark: SparkSession) -> None:
    """The fold without class 1 trains a network on a column of zeros, which says no."""
    estimator = OneVsRest(classifier=small(maxIter=4), parallelism=2)
    model = searched(estimator, folded(spark, 1), "accuracy")
    assert [len(fold[0].models) for fold in model.subModels] == [4, 4]
    assert model.avgMetrics[0] > 0.5


def test_one_vs_rest_of_a_class_without_rows(
    rare_top: DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    data = rare_top.where("label <> 1")
    with caplog.at_level(logging.WARNING, "sparknn"):
        model = OneVsRest(classifier=small(maxIter=4)).fit(data)
    assert "'mc2b$1' has one class only (0) of the 2 that its name" in caplog.text
    predicted = model.transform(data)
    assert predicted.where("prediction = 1").count() == 0
    assert accuracy(predicted) > 0.5


def test_num_classes_has_no_place_in_one_vs_rest(rare_top: DataFrame) -> None:
    with pytest.raises(ParamError, match=r"= 3; .* Leave numClasses at 0. If OneVsRest did not"):
        OneVsRest(classifier=small(numClasses=3)).fit(rare_top)


@pytest.mark.parametrize("params", [{"numClasses": 3}, {"thresholds": [0.5, 0.3, 0.2]}])
def test_one_class_of_several_declared(
    rare_top: DataFrame, params: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    data = rare_top.where("label = 1")
    with caplog.at_level(logging.WARNING, "sparknn"):
        model = small(maxIter=8, **params).fit(data)
    assert "one class only (1) of the 3 that" in caplog.text
    assert model.numClasses == 3
    assert model.transform(data).where("prediction = 1").count() == data.count()


@pytest.mark.parametrize(
    ("n_classes", "says"),
    [(3, r"has class 3, but numClasses declares 3 classes \(0 to 2\). Raise"), (1, "has class 3")],
)
def test_labels_beyond_num_classes(rare_top: DataFrame, n_classes: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        small(numClasses=n_classes).fit(rare_top)


def test_thresholds_must_agree_with_num_classes(rare_top: DataFrame) -> None:
    model = small(maxIter=1, numClasses=5, thresholds=[0.2] * 5).fit(rare_top)
    assert model.numClasses == 5
    with pytest.raises(ValueError, match="thresholds has 4 numbers; expected 5"):
        small(numClasses=5, thresholds=[0.2] * 4).fit(rare_top)


@pytest.mark.parametrize(
    ("params", "error", "says"),
    [
        (
            {"numClasses": 5},
            ParamError,
            "numClasses = 5; label column 'label' has 4 classes by its metadata. Leave",
        ),
        ({"thresholds": [0.2] * 5}, ValueError, "thresholds has 5 numbers; expected 4"),
    ],
)
def test_metadata_is_not_overruled(
    rare_top: DataFrame,
    params: dict[str, Any],
    error: type[Exception],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what contradicts it is an error before rows are taken in."""
    metadata = {"ml_attr": {"type": "nominal", "num_vals": 4}}
    indexed = rare_top.where("label < 2").withMetadata("label", metadata)
    assert small(maxIter=1, numClasses=4).fit(indexed).numClasses == 4

    def refuse(*_: Any) -> None:
        raise AssertionError("rows were taken in")

    monkeypatch.setattr(train_module, "open_engine", refuse)
    with pytest.raises(error, match=says):
        small(**params).fit(indexed)


def test_maps_and_files_keep_num_classes(rare_top: DataFrame, tmp_path: Any) -> None:
    estimator = small(maxIter=1)
    few = rare_top.where(F.col("label") < 2)
    one, other = estimator.fit(few, [{}, {estimator.numClasses: 4}])
    assert (one.numClasses, other.numClasses) == (2, 4)
    assert not other.hasParam("numClasses")
    # As CrossValidator does with the map that a model was trained with.
    assert other.transform(few, {estimator.numClasses: 4}).count() == few.count()
    estimator.setNumClasses(4).save(str(tmp_path / "estimator"))
    loaded = NeuralNetClassifier.load(str(tmp_path / "estimator"))
    assert loaded.getNumClasses() == 4
    other.save(str(tmp_path / "model"))
    assert type(other).load(str(tmp_path / "model")).numClasses == 4
