"""Estimators and models on wide sparse vectors: hashed text, and numbers beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.feature import IDF, HashingTF, Tokenizer, VectorAssembler
from pyspark.ml.linalg import DenseVector, SparseVector, Vectors, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType
from tables import accuracy, sparse, table

from sparknn import (
    NeuralNetClassificationModel,
    NeuralNetClassifier,
    NeuralNetRegressionModel,
    NeuralNetRegressor,
)
from sparknn.ml.schema import SchemaError

scipy_sparse = pytest.importorskip("scipy.sparse")

Array = np.ndarray[Any, Any]
WIDTH = 1 << 18
TOPICS = ["ship sea sail harbour", "bread oven flour dough", "engine wheel road brake"]


def texts(n: int, seed: int = 0) -> tuple[list[str], Array]:
    """Texts of three topics: a few words of their own among many that say nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    found = []
    for topic in y:
        own = rng.choice(TOPICS[topic].split(), size=2)
        others = [f"w{word}" for word in rng.zipf(1.3, size=12) % 3000]
        found.append(" ".join(rng.permutation([*own, *others])))
    return found, y.astype(float)


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    """Texts and labels; every fourth row is held out."""
    found, y = texts(600)
    data = [
        (text, float(label), i % 4 == 0)
        for i, (text, label) in enumerate(zip(found, y, strict=True))
    ]
    frame = spark.createDataFrame(data, ["text", "label", "held_out"]).cache()
    yield frame
    frame.unpersist()


def hashed(rows: DataFrame, n_features: int = WIDTH) -> DataFrame:
    words = Tokenizer(inputCol="text", outputCol="words").transform(rows)
    return HashingTF(inputCol="words", outputCol="features", numFeatures=n_features).transform(
        words
    )


def small(**params: Any) -> NeuralNetClassifier:
    return NeuralNetClassifier(
        **{"hiddenLayers": [8], "maxIter": 4, "numWorkers": 2, "seed": 3, **params}
    )


@pytest.fixture(scope="module")
def frame(rows: DataFrame) -> Iterator[DataFrame]:
    found = hashed(rows).select("features", "label", "held_out").cache()
    yield found
    found.unpersist()


@pytest.fixture(scope="module")
def model(frame: DataFrame) -> NeuralNetClassificationModel:
    return small(validationIndicatorCol="held_out").fit(frame)


def csr(frame: DataFrame) -> Any:
    vectors = [row.features for row in frame.select("features").collect()]
    starts = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    return scipy_sparse.csr_matrix(
        (
            np.concatenate([vector.values for vector in vectors]),
            np.concatenate([vector.indices for vector in vectors]),
            starts,
        ),
        shape=(len(vectors), vectors[0].size),
    )


def test_a_text_pipeline(rows: DataFrame, tmp_path: Path) -> None:
    pipeline = Pipeline(
        stages=[
            Tokenizer(inputCol="text", outputCol="words"),
            HashingTF(inputCol="words", outputCol="counts"),
            IDF(inputCol="counts", outputCol="features"),
            small(maxIter=8),
        ]
    )
    fitted = pipeline.fit(rows.where("not held_out"))
    assert accuracy(fitted.transform(rows.where("held_out"))) > 0.9
    fitted.write().save(str(tmp_path / "pipeline"))


def test_it_learns_and_is_scored(model: NeuralNetClassificationModel, frame: DataFrame) -> None:
    assert model.layers == [WIDTH, 8, 3]
    assert accuracy(model.transform(frame.where("held_out"))) > 0.8
    history = model.summary.history
    assert history["validation_loss"].iloc[-1] < history["validation_loss"].iloc[0]


def test_the_same_numbers_by_every_way_to_predict(
    model: NeuralNetClassificationModel, frame: DataFrame
) -> None:
    some = frame.limit(40).coalesce(1).cache()
    predicted = model.transform(some).collect()
    raw = np.array([row.rawPrediction.toArray() for row in predicted])
    local = model.toLocal()
    assert np.array_equal(local.predict_raw(csr(some)), raw)
    for row, expected in zip(predicted, raw, strict=True):
        assert np.array_equal(model.predictRaw(row.features).toArray(), expected)
        assert model.predict(row.features) == row.prediction
    vector = predicted[0].features
    assert np.array_equal(model.predictRaw(DenseVector(vector.toArray())).toArray(), raw[0])
    spread = np.array(
        [row.rawPrediction.toArray() for row in model.transform(some.repartition(7)).collect()]
    )
    assert sorted(map(tuple, spread)) == sorted(map(tuple, raw))
    some.unpersist()


def test_persistence(model: NeuralNetClassificationModel, frame: DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "model")
    model.write().save(path)
    loaded = NeuralNetClassificationModel.load(path)
    assert loaded.theta.tobytes() == model.theta.tobytes()
    matrix = csr(frame.limit(30))
    assert np.array_equal(loaded.toLocal().predict_raw(matrix), model.toLocal().predict_raw(matrix))


def test_words_of_no_training_row_change_nothing(
    model: NeuralNetClassificationModel, frame: DataFrame
) -> None:
    W = model.network.blocks(model.theta)[0].W
    seen = np.unique(csr(frame.where("not held_out")).indices)
    unseen = np.setdiff1d(np.arange(WIDTH), seen)
    assert not W[unseen].any()
    assert W[seen].any(axis=1).all()


def test_a_fit_continues_a_model(model: NeuralNetClassificationModel, frame: DataFrame) -> None:
    still = small(maxIter=1, stepSize=1e-12, initialModel=model, regParam=0.0).fit(frame)
    matrix = csr(frame.limit(50))
    np.testing.assert_allclose(
        still.toLocal().predict_raw(matrix), model.toLocal().predict_raw(matrix), atol=1e-3
    )


def test_fit_multiple_gives_each_maps_own_model(frame: DataFrame) -> None:
    estimator = small(maxIter=1)
    maps = [{estimator.stepSize: 0.01}, {estimator.solver: "ngsgd"}]
    together = estimator.fit(frame, maps)
    for one, params in zip(together, maps, strict=True):
        assert one.theta.tobytes() == estimator.fit(frame, params).theta.tobytes()


def test_checkpoints(frame: DataFrame, tmp_path: Path) -> None:
    plain = small(validationIndicatorCol="held_out").fit(frame)
    kept = small(validationIndicatorCol="held_out", checkpointDir=str(tmp_path)).fit(frame)
    assert kept.theta.tobytes() == plain.theta.tobytes()


@pytest.mark.parametrize("solver", ["momentum", "adamw", "ngsgd"])
def test_every_solver_learns(frame: DataFrame, solver: str) -> None:
    found = small(solver=solver, maxIter=6).fit(frame)
    assert accuracy(found.transform(frame)) > 0.9


def test_without_standardisation(frame: DataFrame) -> None:
    found = small(standardization=False, maxIter=10, stepSize=0.01).fit(frame)
    assert accuracy(found.transform(frame)) > 0.9


def test_numbers_beside_text(rows: DataFrame) -> None:
    """A year is centred, so that it tells what it has to tell, and drowns no words."""
    words = hashed(rows, 4096).withColumnRenamed("features", "hashed")
    for year in ("2000 + pmod(hash(text), 20)", "2000 + 5 * label"):
        columns = words.selectExpr("*", f"{year} as year")
        assembler = VectorAssembler(inputCols=["hashed", "year"], outputCol="features")
        assembled = assembler.transform(columns)
        found = small(maxIter=6).fit(assembled.where("not held_out"))
        assert found.numFeatures == 4097
        assert accuracy(found.transform(assembled.where("held_out"))) > 0.8
        effect = found.network.blocks(found.theta)[0].W[4096]
        assert np.abs(effect).max() > 1e-3


def test_regression(spark: SparkSession, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = np.zeros((500, 3000))
    X[:, :60] = rng.normal(size=(500, 60)) * (rng.random((500, 60)) < 0.2)
    y = X[:, :60] @ np.random.default_rng(1).normal(size=60) * 10 + 100
    frame = table(spark, X, y, sparse).cache()
    found = NeuralNetRegressor(hiddenLayers=[16], numWorkers=2, maxIter=20, seed=1).fit(frame)
    predicted = np.array([row.prediction for row in found.transform(frame).collect()])
    assert 1 - np.var(predicted - y) / np.var(y) > 0.8
    found.write().save(str(tmp_path / "model"))
    loaded = NeuralNetRegressionModel.load(str(tmp_path / "model"))
    assert np.array_equal(loaded.toLocal().predict(scipy_sparse.csr_matrix(X)), predicted)
    frame.unpersist()


def test_rows_of_another_width(model: NeuralNetClassificationModel, rows: DataFrame) -> None:
    with pytest.raises(SchemaError, match="262144"):
        model.transform(hashed(rows, 4096))
    with pytest.raises(ValueError, match=r"expected one row, \(262144,\)"):
        model.predict(SparseVector(7, [1], [1.0]))


def test_invalid_rows(model: NeuralNetClassificationModel, spark: SparkSession) -> None:
    good, bad = Vectors.sparse(WIDTH, [5], [1.0]), Vectors.sparse(WIDTH, [5], [float("nan")])
    data = [(good,), (bad,), (None,), (good,)]
    frame = spark.createDataFrame(data, StructType().add("features", VectorUDT())).coalesce(1)
    keep = model.copy().setHandleInvalid("keep").transform(frame).collect()
    assert [row.prediction is None for row in keep] == [False, True, True, False]
    assert model.copy().setHandleInvalid("skip").transform(frame).count() == 2
    with pytest.raises(Exception, match="1 null, 1 with null, NaN"):
        model.transform(frame).collect()


@pytest.mark.parametrize("d", [60, 3000])
def test_a_time_beside_one_hot_columns_is_learned(spark: SparkSession, d: int) -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(size=600)
    X = np.zeros((600, d))
    X[np.arange(600), rng.integers(1, d, size=600)] = 1
    found = []
    for offset in (0.0, 1e9, 1e12):
        X[:, 0] = t + offset
        frame = table(spark, X, (t > 0).astype(float), sparse)
        model = small().fit(frame)
        predicted = model.transform(frame)
        found.append(accuracy(predicted))
        mine = [row.prediction for row in predicted.select("prediction").collect()]
        assert model.toLocal().predict(scipy_sparse.csr_matrix(X)).tolist() == mine
    assert found[0] > 0.95
    assert found[1:] == pytest.approx([found[0]] * 2, abs=0.01)
