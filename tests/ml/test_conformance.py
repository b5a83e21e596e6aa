"""Check that classifier and regressor behave as users of Spark ML expect of any estimator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import conformance
import numpy as np
import pytest
from conformance import CHECKS, Subject, check_spark_estimator
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import blobs, curve

from sparknn import NeuralNetClassifier, NeuralNetRegressor

QUICK: dict[str, Any] = {"hiddenLayers": [8], "maxIter": 3, "numWorkers": 2, "seed": 5}


def classifier(spark: SparkSession, folder: Path) -> Subject:
    X, y = blobs(240)
    estimator = NeuralNetClassifier(**QUICK)
    return Subject(estimator, table(spark, np.rint(8 * X), y), folder)


def regressor(spark: SparkSession, folder: Path) -> Subject:
    """With other column names than the defaults."""
    X = np.rint(8 * curve(240)[0])
    y = 2000 * np.sin(X @ [0.06, -0.05, 0.04, 0.0]) + 30_000
    columns = {"featuresCol": "inputs", "labelCol": "target", "predictionCol": "my prediction"}
    estimator = NeuralNetRegressor(**QUICK, **columns)
    data = table(spark, X, y).withColumnsRenamed({"features": "inputs", "label": "target"})
    return Subject(estimator, data, folder)


@pytest.fixture(scope="module", params=[classifier, regressor], ids=lambda make: make.__name__)
def subject(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    make: Callable[[SparkSession, Path], Subject] = request.param
    return make(spark, tmp_path_factory.mktemp(make.__name__))


@pytest.mark.parametrize("check", CHECKS)
def test_conforms(subject: Subject, check: str) -> None:
    CHECKS[check](subject)


def test_all_failures_are_reported(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Subject) -> None:
        raise AssertionError("no good")

    monkeypatch.setattr(
        conformance, "CHECKS", {"one": fail, "two": CHECKS["uids_of_estimators"], "three": fail}
    )
    with pytest.raises(ExceptionGroup, match="NeuralNetRegressor does not conform") as raised:
        check_spark_estimator(NeuralNetRegressor(), table(spark, *curve(3)), tmp_path)
    notes = [note for error in raised.value.exceptions for note in error.__notes__]
    assert notes == [f"In the check '{name}' of NeuralNetRegressor." for name in ("one", "three")]


class Opinionated(NeuralNetClassifier):
    """Changes its params during a fit."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self._set(tol=0.5)


class Shared(NeuralNetClassifier):
    """Copies share their params."""

    def copy(self, extra: Any = None) -> Any:
        copied = super().copy(extra)
        copied._paramMap = self._paramMap
        return copied


class Forgetful(NeuralNetClassifier):
    """Keeps the result of a fit."""

    def fit(self, dataset: DataFrame, params: Any = None) -> Any:
        self.setSeed(self.getSeed() + 1)
        return super().fit(dataset, params)


class Leaking(NeuralNetClassifier):
    """Does not unpersist its rows."""

    def fit(self, dataset: DataFrame, params: Any = None) -> Any:
        dataset.rdd.persist().count()
        return super().fit(dataset, params)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Opinionated, "constructible_without_arguments"),
        (Opinionated, "constructor_only_stores"),
        (Shared, "copy_is_isolated"),
        (Forgetful, "fit_leaves_params_alone"),
        (Leaking, "nothing_is_left_by_fit_and_transform"),
    ],
)
def test_the_suite_finds(cls: Any, check: str, spark: SparkSession, tmp_path: Path) -> None:
    X, y = blobs(40)
    subject = Subject(cls(hiddenLayers=[2], maxIter=1), table(spark, np.rint(X), y), tmp_path)
    with pytest.raises(AssertionError):
        CHECKS[check](subject)
    spark.catalog.clearCache()
    for persisted in spark.sparkContext._jsc.getPersistentRDDs().values():
        persisted.unpersist()
