"""Check that transform adds the predictor's numbers for any kind of features and batches."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from models import classifier, error_of, regressor, rows
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vector, Vectors, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StructField,
    StructType,
)

from sparknn.ml.model import NetworkModel
from sparknn.ml.schema import SchemaError

D, K, N = 6, 3, 60
MODEL = classifier(D, 8, K)
BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"


def dense(x: np.ndarray) -> Vector:
    return Vectors.dense(x)


def sparse(x: np.ndarray) -> Vector:
    return Vectors.sparse(len(x), [(int(i), float(x[i])) for i in np.flatnonzero(x)])


def frame(spark: SparkSession, values: list[Any], kind: DataType | None = None) -> DataFrame:
    schema = StructType(
        [StructField("id", LongType()), StructField("features", kind or VectorUDT())]
    )
    return spark.createDataFrame(list(enumerate(values)), schema)


def numbers(df: DataFrame) -> np.ndarray:
    """(n, K + K + 1): raw predictions, probabilities and predictions in the order of ids."""
    found = df.select("id", "rawPrediction", "probability", "prediction").collect()
    return np.array([[*r[1].toArray(), *r[2].toArray(), r[3]] for r in sorted(found)])


def expected(X: np.ndarray, model: NetworkModel = MODEL) -> np.ndarray:
    local = model.toLocal()
    return np.column_stack([local.predict_raw(X), local.predict_proba(X), local.predict(X)])


@pytest.fixture
def batch_size(spark: SparkSession) -> Iterator[Any]:
    before = spark.conf.get(BATCH)
    yield lambda n: spark.conf.set(BATCH, str(n))
    spark.conf.set(BATCH, before)


@pytest.mark.parametrize("store", ["dense", "sparse", "mixed"])
def test_vectors_of_every_kind(spark: SparkSession, store: str) -> None:
    X = rows(N, D)
    makers = {"dense": [dense], "sparse": [sparse], "mixed": [dense, sparse, sparse]}[store]
    df = frame(spark, [makers[i % len(makers)](x) for i, x in enumerate(X)])
    assert numbers(MODEL.transform(df)).tobytes() == expected(X).tobytes()


@pytest.mark.parametrize(
    "element",
    [ByteType, ShortType, IntegerType, LongType, FloatType, DoubleType, DecimalType],
)
def test_arrays_of_any_number(spark: SparkSession, element: type[DataType]) -> None:
    X = np.rint(4 * rows(N, D))
    df = frame(spark, X.tolist(), ArrayType(DoubleType()))
    df = df.withColumn("features", F.col("features").cast(ArrayType(element())))
    assert numbers(MODEL.transform(df)).tobytes() == expected(X).tobytes()


def test_no_row_and_one_row(spark: SparkSession) -> None:
    empty = MODEL.transform(frame(spark, []))
    assert empty.columns == ["id", "features", "rawPrediction", "probability", "prediction"]
    assert empty.collect() == []
    X = rows(1, D)
    assert numbers(MODEL.transform(frame(spark, [dense(X[0])]))).tobytes() == expected(X).tobytes()


def test_batches_partitions_and_order_do_not_matter(spark: SparkSession, batch_size: Any) -> None:
    X = rows(N, D)
    df = frame(spark, [dense(x) if i % 2 else sparse(x) for i, x in enumerate(X)])
    same = expected(X).tobytes()
    for n_rows, shaped in [
        (1, df),
        (7, df.repartition(3)),
        (0, df.coalesce(1)),
        (10_000, df.orderBy(F.desc("id"))),
        (13, df.repartition(5, "id").orderBy(F.rand(1))),
    ]:
        batch_size(n_rows)
        assert numbers(MODEL.transform(shaped)).tobytes() == same


def test_rows_straight_from_a_file(spark: SparkSession, tmp_path: Any) -> None:
    """Which Spark may read as columns; other filters still reach the file."""
    X = rows(N, D)
    frame(spark, [dense(x) for x in X]).write.parquet(str(tmp_path / "rows"))
    df = spark.read.parquet(str(tmp_path / "rows"))
    predicted = MODEL.transform(df)
    assert numbers(predicted).tobytes() == expected(X).tobytes()
    assert numbers(predicted.where("id < 5")).tobytes() == expected(X[:5]).tobytes()
    filtered = predicted.where("id < 5")._jdf.queryExecution().executedPlan().toString()
    assert "LessThan(id,5)" in filtered
    arrays = df.withColumn("array", vector_to_array("features"))
    on_arrays = MODEL.transform(arrays, {MODEL.featuresCol: "array"})
    assert numbers(on_arrays).tobytes() == expected(X).tobytes()


def test_predict_equals_transform(spark: SparkSession) -> None:
    X = rows(5, D)
    found = MODEL.transform(frame(spark, [dense(x) for x in X])).orderBy("id").collect()
    for x, row in zip(X, found, strict=True):
        assert MODEL.predictRaw(dense(x)) == row.rawPrediction
        assert MODEL.predictProbability(sparse(x)) == row.probability
        assert MODEL.predict(x.tolist()) == row.prediction


def test_several_targets_make_a_vector_and_one_a_number(spark: SparkSession) -> None:
    X = rows(N, D)
    df = frame(spark, [dense(x) for x in X])
    for model in (regressor(D, 4, 1), regressor(D, 4, 3, loss="huber")):
        found = model.transform(df).orderBy("id").select("prediction").collect()
        values = [r[0] if model.numTargets == 1 else r[0].toArray() for r in found]
        assert np.array(values).tobytes() == model.toLocal().predict(X).tobytes()
        one = model.predict(dense(X[0]))
        assert one == found[0][0]


def python_evaluations(df: DataFrame) -> int:
    """Calls of a Python function, in however many steps of a plan."""
    text = df._jdf.queryExecution().executedPlan().toString()
    nodes = [line for line in text.splitlines() if "EvalPython" in line]
    return sum(len(set(re.findall(r"pythonUDF\d+#\d+", node))) for node in nodes)


@pytest.mark.parametrize("handle_invalid", ["error", "skip", "keep"])
def test_python_runs_once_for_all_columns(spark: SparkSession, handle_invalid: str) -> None:
    model = MODEL.copy({MODEL.handleInvalid: handle_invalid})
    df = model.transform(frame(spark, [dense(x) for x in rows(4, D)]))
    assert python_evaluations(df) == 1
    assert python_evaluations(df.select("prediction", "probability")) == 1
    assert python_evaluations(df.select("id")) == (1 if handle_invalid == "skip" else 0)


def test_each_of_two_models_in_a_row_predicts_once(spark: SparkSession) -> None:
    first = MODEL.copy({MODEL.probabilityCol: "seen"})
    df = first.transform(frame(spark, [dense(x) for x in rows(4, D)]))
    second = classifier(first.numClasses, 2)
    named = {
        "featuresCol": "seen",
        "rawPredictionCol": "",
        "probabilityCol": "",
        "predictionCol": "q",
    }
    second = second.copy({getattr(second, name): value for name, value in named.items()})
    assert python_evaluations(second.transform(df)) == 2


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ({"probabilityCol": ""}, ["rawPrediction", "prediction"]),
        ({"rawPredictionCol": "", "probabilityCol": ""}, ["prediction"]),
        ({"predictionCol": "", "rawPredictionCol": "raw.of"}, ["raw.of", "probability"]),
        ({"predictionCol": "", "rawPredictionCol": "", "probabilityCol": ""}, []),
    ],
)
def test_columns_by_name_and_left_out(
    spark: SparkSession, off: dict[str, str], left: list[str]
) -> None:
    model = MODEL.copy({getattr(MODEL, name): value for name, value in off.items()})
    df = model.transform(frame(spark, [dense(x) for x in rows(2, D)]))
    assert df.columns == ["id", "features", *left]
    assert df.count() == len(df.collect()) == 2


@pytest.mark.parametrize("handle_invalid", ["error", "skip"])
def test_columns_with_odd_names(spark: SparkSession, handle_invalid: str) -> None:
    X = rows(3, D)
    df = frame(spark, [dense(x) for x in X]).withColumnRenamed("features", "my.features")
    # The last is the name of an internal column, which must not replace the user's.
    names = ["a.b", "Prediction of `x`", "__SPARKNN_Scores"]
    for name in names:
        df = df.withColumn(name, F.lit(1))
    params = {MODEL.featuresCol: "my.features", MODEL.handleInvalid: handle_invalid}
    found = MODEL.transform(df, params)
    assert found.columns[:5] == ["id", "my.features", *names]
    assert numbers(found).tobytes() == expected(X).tobytes()


def test_thresholds(spark: SparkSession) -> None:
    X = rows(N, D)
    df = frame(spark, [dense(x) for x in X])
    model = MODEL.copy({MODEL.thresholds: [0.9, 0.0, 0.9]})
    found = numbers(model.transform(df))
    assert found.tobytes() == expected(X, model).tobytes()
    assert set(found[:, -1]) == {1.0}
    with pytest.raises(ValueError, match="thresholds has 2 numbers; expected 3"):
        MODEL.copy({MODEL.thresholds: [0.5, 0.5]}).transform(df)


def test_metadata_as_sparks_models_set_it(spark: SparkSession) -> None:
    schema = MODEL.transform(frame(spark, [])).schema
    assert schema["prediction"].metadata == {"ml_attr": {"type": "nominal", "num_vals": K}}
    assert schema["probability"].metadata == {"ml_attr": {"num_attrs": K}}
    assert schema["features"].metadata == {}


INVALID = [
    None,
    Vectors.dense([np.nan] * D),
    Vectors.sparse(D, [(2, float("inf"))]),
    Vectors.dense([1e300] * D),
]


def test_invalid_rows_kept_or_skipped(spark: SparkSession) -> None:
    X = rows(4, D)
    df = frame(spark, [v for pair in zip(map(dense, X), INVALID, strict=True) for v in pair])
    kept = MODEL.copy({MODEL.handleInvalid: "keep"}).transform(df)
    found = kept.orderBy("id").select("rawPrediction", "probability", "prediction").collect()
    assert [r[0] is None for r in found] == [False, True] * 4
    assert all(r[1:] == (None, None) for r in found[1::2])
    assert numbers(kept.where("id % 2 = 0")).tobytes() == expected(X).tobytes()
    skipped = MODEL.copy({MODEL.handleInvalid: "skip"}).transform(df)
    assert numbers(skipped).tobytes() == expected(X).tobytes()
    assert skipped.count() == 4
    assert skipped.where("prediction >= 0").count() == 4


def test_invalid_entries_of_arrays(spark: SparkSession) -> None:
    values = [[1.0] * D, None, [1.0, None, *[1.0] * (D - 2)], [float("nan")] * D]
    df = frame(spark, values, ArrayType(DoubleType()))
    kept = MODEL.copy({MODEL.handleInvalid: "keep"}).transform(df).orderBy("id").collect()
    assert [row.prediction is None for row in kept] == [False, True, True, True]
    integers = frame(spark, [[1] * D, [None] * D, None], ArrayType(IntegerType()))
    kept = MODEL.copy({MODEL.handleInvalid: "keep"}).transform(integers).orderBy("id").collect()
    assert [row.prediction is None for row in kept] == [False, True, True]


def test_invalid_rows_are_an_error_that_counts_them(spark: SparkSession) -> None:
    df = frame(spark, [dense(rows(1, D)[0]), *INVALID]).coalesce(1)
    message = error_of(MODEL.transform(df))
    assert "'features' has 4 invalid rows in a batch of 5" in message
    assert "1 null, 3 with null, NaN" in message


@pytest.mark.parametrize(
    ("vector", "handle_invalid"),
    [(dense(np.ones(D + 1)), "error"), (sparse(np.ones(D - 1)), "keep")],
)
def test_rows_of_another_size(spark: SparkSession, vector: Vector, handle_invalid: str) -> None:
    df = frame(spark, [dense(np.ones(D)), vector])
    model = MODEL.copy({MODEL.handleInvalid: handle_invalid})
    expected = f"rows of {vector.size} features; the model was trained on {D}"
    assert expected in error_of(model.transform(df))


def test_another_size_is_seen_in_the_metadata(spark: SparkSession) -> None:
    df = spark.createDataFrame([(1.0, 2.0)], ["a", "b"])
    df = VectorAssembler(inputCols=["a", "b"], outputCol="features").transform(df)
    with pytest.raises(SchemaError, match="'features' has 2 features by its metadata"):
        MODEL.transform(df)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda df: df.withColumnRenamed("features", "feature"), "did you mean 'feature'"),
        (lambda df: df.withColumn("features", F.lit("x")), "has type string; expected a vector"),
        (lambda df: df.withColumn("features", F.array(F.lit("x"))), "has type array<string>"),
        (lambda df: df.withColumn("features", F.col("id")), "has type bigint"),
        (lambda df: df.withColumn("probability", F.lit(1)), "'probability' already exists"),
        (
            lambda df: df.withColumn("PREDICTION", F.lit(1)),
            "'prediction' already exists as 'PREDICTION', the same to Spark unless",
        ),
        (lambda df: df.withColumnRenamed("features", "FEATURES"), "did you mean 'FEATURES'"),
        (
            lambda df: df.select(F.lit(1).alias("features"), F.lit(1).alias("prediction")),
            "(?s)has type int.*'prediction' already exists",
        ),
    ],
)
def test_what_the_schema_shows_is_an_error_at_once(
    spark: SparkSession, make: Any, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        MODEL.transform(make(frame(spark, [])))


def test_where_case_matters_names_may_differ_by_it(spark: SparkSession) -> None:
    X = rows(3, D)
    df = frame(spark, [dense(x) for x in X]).withColumn("PREDICTION", F.lit(7))
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        found = MODEL.transform(df)
        assert found.columns[-2:] == ["probability", "prediction"]
        assert numbers(found).tobytes() == expected(X).tobytes()
    finally:
        spark.conf.unset("spark.sql.caseSensitive")
