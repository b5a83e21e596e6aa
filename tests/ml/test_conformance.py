"""Check that classifier and regressor behave as users of Spark ML expect of any estimator."""

from pathlib import Path
from typing import Any

import conformance
import numpy as np
import pytest
from conformance import CHECKS, LABEL_FREE, Subject, check_spark_estimator
from conformance.persistence import in_a_fresh_process
from conformance.subject import SparseSubject, TableSubject
from pyspark.sql import DataFrame, SparkSession
from tables import sparse, table
from toys import blobs, curve

from sparknn import NeuralNetClassifier, NeuralNetRegressor
from sparknn.core.nn.input_layer import LEAST_SPARSE

QUICK: dict[str, Any] = {"hiddenLayers": [8], "maxIter": 3, "numWorkers": 2, "seed": 5}


def classifier(spark: SparkSession, folder: Path) -> Subject:
    """With columns of other names than the usual ones."""
    X, y = blobs(240)
    columns = {"featuresCol": "inputs", "labelCol": "target", "predictionCol": "my prediction"}
    estimator = NeuralNetClassifier(**QUICK, **columns)
    data = table(spark, np.rint(8 * X), y)
    named = data.withColumnsRenamed({"features": "inputs", "label": "target"})
    return Subject(estimator, named, folder)


def regressor(spark: SparkSession, folder: Path) -> Subject:
    """With encoded numbers, which are the default of more rows."""
    X = np.rint(8 * curve(240)[0])
    y = 2000 * np.sin(X @ [0.06, -0.05, 0.04, 0.0]) + 30_000
    estimator = NeuralNetRegressor(numericEncoding="piecewise", **QUICK)
    return Subject(estimator, table(spark, X, y), folder)


def columns(spark: SparkSession, folder: Path) -> Subject:
    """With text, booleans, numbers and vectors as columns, some of them missing."""
    X = np.rint(8 * curve(240)[0])
    y = 2000 * np.sin(X @ [0.06, -0.05, 0.04, 0.0]) + 30_000
    given = {"inputCols": [*TableSubject.COLUMNS], "handleInvalid": "keep"}
    estimator = NeuralNetRegressor(numericEncoding="piecewise", **given, **QUICK)
    return TableSubject(estimator, table(spark, X, y), folder)


def texts(spark: SparkSession, folder: Path) -> Subject:
    """With sparse vectors that stay sparse: ten words of each class, and others."""
    rng = np.random.default_rng(0)
    X = (rng.random((240, LEAST_SPARSE)) < 0.01).astype(float)
    y = rng.integers(0, 2, 240).astype(float)
    X[:, :20] = rng.random((240, 20)) < np.where(np.arange(20) // 10 == y[:, None], 0.5, 0.1)
    return SparseSubject(NeuralNetClassifier(**QUICK), table(spark, X, y, sparse), folder)


@pytest.fixture(scope="module")
def subjects(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    return {
        make.__name__: make(spark, tmp_path_factory.mktemp(make.__name__))
        for make in (classifier, regressor, columns, texts)
    }


# One process, for both, is tested below.
HERE = [name for name in CHECKS if name != "a_fresh_process_loads_everything"]


@pytest.mark.parametrize("check", HERE)
def test_a_classifier_conforms(subjects: dict[str, Subject], check: str) -> None:
    CHECKS[check](subjects["classifier"])


# What other features may change.
OF_FITS = {
    "refit_is_idempotent",
    "fit_with_maps_equals_single_fits",
    "it_learns",
    "predictions_are_of_rows",
    "round_trip_in_this_process",
}
OF_TEXTS = {*OF_FITS, "predict_equals_transform"}
OF_COLUMNS = {
    *OF_FITS,
    "transform_keeps_rows_and_columns",
    "transform_starts_no_job",
    "nothing_is_left_by_fit_and_transform",
}


# What pyspark changes from version to version, it changes for all. A regressor's fits are those of
# its columns.
@pytest.mark.newest_spark
@pytest.mark.parametrize("check", [name for name in HERE if name not in LABEL_FREE | OF_FITS])
def test_a_regressor_conforms(subjects: dict[str, Subject], check: str) -> None:
    CHECKS[check](subjects["regressor"])


@pytest.mark.newest_spark
@pytest.mark.parametrize("check", sorted(OF_COLUMNS))
def test_raw_columns_conform(subjects: dict[str, Subject], check: str) -> None:
    CHECKS[check](subjects["columns"])


@pytest.mark.newest_spark
@pytest.mark.parametrize("check", sorted(OF_TEXTS))
def test_sparse_features_conform(subjects: dict[str, Subject], check: str) -> None:
    CHECKS[check](subjects["texts"])


@pytest.mark.slow
def test_a_fresh_process_loads_what_others_have_saved(
    subjects: dict[str, Subject], tmp_path: Path
) -> None:
    in_a_fresh_process([subjects[name] for name in ("classifier", "columns")], tmp_path)


def test_every_check_that_is_run_once_is_a_check() -> None:
    assert set(HERE) > LABEL_FREE | OF_TEXTS | OF_COLUMNS


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
