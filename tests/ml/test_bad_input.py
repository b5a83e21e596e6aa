"""What cannot be trained on is an error that says what to do; before any job, if it can be seen."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from models import classifier
from pyspark.ml.linalg import VectorUDT
from pyspark.mllib.linalg import VectorUDT as OldVectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DateType,
    DoubleType,
    StringType,
    StructField,
    StructType,
)
from tables import table
from toys import blobs, curve

import sparknn.ml.fit as train_module
from sparknn import NeuralNetClassifier, NeuralNetRegressor
from sparknn.engine.interface import DataError
from sparknn.ml.checked_params import ParamError
from sparknn.ml.schema import SchemaError

SCHEMA = StructType(
    [
        StructField("features", VectorUDT()),
        StructField("label", DoubleType()),
        StructField("text", StringType()),
        StructField("texts", ArrayType(StringType())),
        StructField("flag", BooleanType()),
        StructField("number", DoubleType()),
        StructField("numbers", ArrayType(DoubleType())),
        StructField("day", DateType()),
        StructField("old", OldVectorUDT()),
    ]
)


@pytest.fixture(scope="module")
def empty(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([], SCHEMA)


@pytest.fixture
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that starts to ingest rows."""

    def refuse(*_: Any) -> None:
        raise AssertionError("rows were ingested")

    monkeypatch.setattr(train_module, "open_engine", refuse)


@pytest.mark.usefixtures("no_jobs")
@pytest.mark.parametrize(
    ("estimator", "params", "says"),
    [
        (
            NeuralNetClassifier,
            {"featuresCol": "featurs"},
            "no column 'featurs'.*did you mean 'features'",
        ),
        (
            NeuralNetClassifier,
            {"labelCol": "nothing"},
            "no column 'nothing' .labels.. Col",
        ),
        (
            NeuralNetClassifier,
            {"featuresCol": "text"},
            "has type string; expected a vector or an array of numbers.*VectorAssembler",
        ),
        (NeuralNetClassifier, {"featuresCol": "number"}, "has type double.*VectorAssembler first"),
        (NeuralNetClassifier, {"featuresCol": "texts"}, "has type array<string>"),
        (NeuralNetClassifier, {"labelCol": "text"}, "Index it with StringIndexer first"),
        (NeuralNetClassifier, {"labelCol": "flag"}, "Cast it to double first"),
        (NeuralNetClassifier, {"labelCol": "numbers"}, "use NeuralNetRegressor"),
        (NeuralNetClassifier, {"labelCol": "day"}, "unix_date.*StringIndexer"),
        (NeuralNetRegressor, {"labelCol": "day"}, "unix_date"),
        (NeuralNetClassifier, {"featuresCol": "old"}, "MLUtils.convertVectorColumnsToML"),
        (NeuralNetRegressor, {"labelCol": "text"}, "expected a number to predict"),
        (NeuralNetRegressor, {"labelCol": "texts"}, "has type array<string>"),
        (NeuralNetClassifier, {"weightCol": "text"}, "'text' has type string; expected numbers"),
        (NeuralNetClassifier, {"weightCol": "wait"}, "There is no column 'wait' .weights."),
        (NeuralNetClassifier, {"validationIndicatorCol": "number"}, "expected booleans"),
        (NeuralNetClassifier, {"predictionCol": "number"}, "Output column 'number' already exists"),
        (NeuralNetRegressor, {"predictionCol": "number"}, "Output column 'number' already exists"),
        (NeuralNetRegressor, {"predictionCol": "NUMBER"}, "'NUMBER' already exists as 'number'"),
        (NeuralNetClassifier, {"probabilityCol": "prediction"}, "named by more than one param"),
        (NeuralNetClassifier, {"probabilityCol": "Prediction"}, "named by more than one param"),
        (NeuralNetClassifier, {"labelCol": "LABEL"}, "no column 'LABEL'.*did you mean 'label'"),
    ],
)
def test_columns(empty: DataFrame, estimator: Any, params: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        estimator(**params).fit(empty)


@pytest.mark.usefixtures("no_jobs")
def test_all_columns_are_checked_at_once(empty: DataFrame) -> None:
    with pytest.raises(SchemaError) as raised:
        NeuralNetClassifier(featuresCol="text", labelCol="flag", weightCol="nothing").fit(empty)
    assert len(str(raised.value).splitlines()) == 3


@pytest.mark.usefixtures("no_jobs")
def test_columns_of_the_same_name(spark: SparkSession, empty: DataFrame) -> None:
    twice = empty.select("features", "label", F.col("number").alias("label"))
    with pytest.raises(SchemaError, match="There are 2 columns 'label'"):
        NeuralNetClassifier().fit(twice)


@pytest.mark.usefixtures("no_jobs")
def test_columns_that_differ_by_case(spark: SparkSession, empty: DataFrame) -> None:
    spark.conf.set("spark.sql.caseSensitive", "true")
    both = empty.withColumn("LABEL", F.lit(1.0))
    spark.conf.set("spark.sql.caseSensitive", "false")
    with pytest.raises(SchemaError, match="'label' and 'LABEL' differ only by case") as error:
        NeuralNetClassifier().fit(both)
    assert [problem.param for problem in error.value.problems] == ["labelCol"]


@pytest.mark.usefixtures("no_jobs")
def test_params_that_do_not_go_together(empty: DataFrame) -> None:
    both = NeuralNetClassifier(validationIndicatorCol="flag", validationFraction=0.1)
    with pytest.raises(ParamError, match=r"validationFraction = 0\.1; not together with"):
        both.fit(empty)


@pytest.mark.usefixtures("no_jobs")
@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({"patience": 2, "finalWeights": "best"}, {"patience", "finalWeights"}),
        ({"tol": 1e-4}, {"tol"}),
        ({"averaging": "mean", "averagingMomentum": 0.5}, {"averagingMomentum"}),
        ({"solver": "sgd", "momentum": 0.9}, {"momentum"}),
    ],
)
def test_params_without_effect(empty: DataFrame, params: dict[str, Any], wrong: set[str]) -> None:
    with pytest.raises(ParamError) as raised:
        NeuralNetClassifier(**params).fit(empty)
    assert set(raised.value.problems) == wrong


@pytest.mark.parametrize(
    "params",
    [
        {"averaging": "mean", "averagingMomentum": 0.0},
        {"averaging": "nesterov", "averagingMomentum": 0.5},
        {"solver": "sgd", "momentum": 0.0},
        {"solver": "sgd"},
        {"tol": 0.1, "patience": 1, "validationFraction": 0.1},
    ],
)
def test_params_that_agree(params: dict[str, Any]) -> None:
    NeuralNetClassifier(**params)._check_combinations()


def small(**params: Any) -> NeuralNetClassifier:
    return NeuralNetClassifier(**{"hiddenLayers": [4], "maxIter": 1, "numWorkers": 2, **params})


def test_an_empty_dataframe(empty: DataFrame) -> None:
    with pytest.raises(DataError, match="empty"):
        small().fit(empty)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0.0, 0.0, 0.0], "one class only"),
        ([0.0, 1.0, 123_456_789.0], "like an identifier"),
        ([0.0, 1.0, -1.0], "negative"),
        ([0.0, 1.0, 1.5], "whole number"),
        ([0.0, 1.0, float("nan")], "NaN"),
    ],
)
def test_labels(spark: SparkSession, labels: list[float], says: str) -> None:
    frame = table(spark, np.ones((3, 2)), np.array(labels))
    with pytest.raises(DataError, match=says):
        small().fit(frame)


def test_labels_beyond_their_metadata(spark: SparkSession) -> None:
    metadata = {"ml_attr": {"type": "nominal", "vals": ["a", "b"]}}
    frame = table(spark, *blobs(20)).withMetadata("label", metadata)
    with pytest.raises(DataError, match="has class 2, but its metadata declares 2 classes"):
        small().fit(frame)


def test_thresholds_of_another_number(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="thresholds has 2 numbers; expected 3, one per class"):
        small(thresholds=[0.5, 0.5]).fit(table(spark, *blobs(20)))


def test_no_validation_row_where_some_are_needed(spark: SparkSession) -> None:
    X, y = blobs(20)
    frame = table(spark, X, y, held_out=np.zeros(20, dtype=bool))
    with pytest.raises(DataError, match="no validation rows, but patience=2 needs some"):
        small(validationIndicatorCol="held_out", patience=2).fit(frame)


def test_more_workers_than_rows(spark: SparkSession) -> None:
    X, y = curve(3)
    model = NeuralNetRegressor(hiddenLayers=[3], maxIter=2, numWorkers=6).fit(
        table(spark, X, y[:, 0])
    )
    assert np.isfinite(model.theta).all()
    assert model.summary.n_rows == 3


def test_a_model_path_that_leads_nowhere(spark: SparkSession, tmp_path: Any) -> None:
    """Found before any row is looked at; in a list of maps, only its own turn raises."""
    frame = table(spark, *blobs(20))
    broken = frame.withColumn("label", F.raise_error(F.lit("evaluated")).cast("double"))
    nowhere = str(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no saved NeuralNetClassificationModel"):
        small(initialModel=nowhere).fit(broken)
    estimator = small(maxIter=1)
    maps: list[Any] = [
        {estimator.initialModel: nowhere},
        {estimator.maxIter: 2},
        {estimator.initialModel: "foreign://somewhere"},
    ]
    models = estimator.fitMultiple(frame, maps)
    with pytest.raises(FileNotFoundError, match="no saved"):
        next(models)
    assert next(models)[1].summary.totalIterations == 2
    with pytest.raises(Exception, match="foreign") as raised:
        next(models)
    assert raised.value.__notes__[0].startswith("In map 3 of 3: {initialModel='foreign:")


def test_nothing_is_left_behind_by_a_failed_fit(spark: SparkSession) -> None:
    sc = spark.sparkContext
    sc.setLocalProperty("spark.job.description", "mine")
    kept = set(sc._jsc.getPersistentRDDs().keySet())
    with pytest.raises(DataError):
        small().fit(table(spark, np.ones((3, 2)), np.zeros(3)))
    assert set(sc._jsc.getPersistentRDDs().keySet()) == kept
    assert sc.getLocalProperty("spark.job.description") == "mine"
    sc.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            pd.DataFrame({"features": [[1.0]], "label": [0]}),
            r"a pandas\.core\.frame\.DataFrame arr",
        ),
        (np.ones((3, 2)), r"a numpy\.ndarray arrived"),
        ([([1.0], 0)], "a list arrived"),
        (None, "a NoneType arrived"),
    ],
    ids=["pandas", "numpy", "list", "None"],
)
def test_what_is_no_dataframe(data: Any, says: str) -> None:
    advice = r"Make one first, with spark\.createDataFrame\(data\)"
    estimator = small()
    for fit in (estimator.fit, lambda data: estimator.fit(data, [{}, {estimator.maxIter: 2}])):
        with pytest.raises(TypeError, match=f"fit takes a Spark DataFrame; {says}.*{advice}"):
            fit(data)
    with pytest.raises(TypeError, match=rf"transform takes .*; {says}.*{advice}; or .*toLocal\(\)"):
        classifier(1, 2).transform(data)


def test_a_pandas_dataframe_of_spark() -> None:
    class Frame:
        __module__ = "pyspark.pandas.frame"

    with pytest.raises(TypeError, match=r"Call its to_spark\(\) first"):
        small().fit(Frame())  # type: ignore[arg-type]


@pytest.mark.parametrize("params", [{"hiddenLayers": [10**10]}, {"numClasses": 10**9}])
def test_a_network_beyond_all_memory(spark: SparkSession, params: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"has .* parameters; expected at most 2.1e\+09"):
        NeuralNetClassifier(numWorkers=2, maxIter=1, **params).fit(table(spark, *blobs(20)))
