"""Check what the classifier learns, from which rows, and what its model keeps."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.datasets import load_digits
from tables import accuracy, table
from toys import blobs

from sparknn import NeuralNetClassificationModel, NeuralNetClassifier
from sparknn.ml.checked_params import ParamError

X, Y = blobs(400)


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    frame = table(spark, X, Y, held_out=np.arange(400) % 4 == 0).cache()
    yield frame
    frame.unpersist()


def small(**params: Any) -> NeuralNetClassifier:
    return NeuralNetClassifier(**{"hiddenLayers": [8], "maxIter": 3, "numWorkers": 2, **params})


@pytest.fixture(scope="module")
def classifier() -> NeuralNetClassifier:
    return small(maxIter=6, validationIndicatorCol="held_out", seed=5)


@pytest.fixture(scope="module")
def model(classifier: NeuralNetClassifier, rows: DataFrame) -> NeuralNetClassificationModel:
    return classifier.fit(rows)


def in_full_batches(**params: Any) -> NeuralNetClassifier:
    """One worker, one step per round: the order of rows does not matter."""
    return small(numWorkers=1, batchSize=10_000, solver="sgd", stepSize=0.5, **params)


def same_function(one: Any, other: Any) -> bool:
    """Whether both models give the rows of ``X`` the same logits, to rounding."""
    logits = [model.toLocal().predict_raw(X) for model in (one, other)]
    return bool(np.allclose(*logits, atol=1e-4))


def test_it_learns(model: NeuralNetClassificationModel, rows: DataFrame) -> None:
    assert accuracy(model.transform(rows)) > 0.8
    assert model.layers[1:] == [8, 3]
    assert model.numClasses == 3
    assert model.numFeatures == 4


def test_the_model_keeps_uid_and_params(
    classifier: NeuralNetClassifier, model: NeuralNetClassificationModel
) -> None:
    assert model.uid == classifier.uid
    assert model.getMaxIter() == 6
    assert model.getSeed() == 5
    # A map that was made for the estimator works on its model.
    renamed = model.copy({classifier.predictionCol: "guess"})
    assert renamed.getPredictionCol() == "guess"


def test_summary_has_every_round(model: NeuralNetClassificationModel) -> None:
    history = model.summary.history
    assert history["round"].tolist() == list(range(6))
    assert history["validation_loss"].notna().all()
    assert history["validation_metric"].between(0, 1).all()
    assert model.summary.n_rows == 300
    assert model.summary.n_validation == 100
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_the_best_round_by_validation_is_kept(
    model: NeuralNetClassificationModel, rows: DataFrame
) -> None:
    scores = model.summary.history["validation_metric"]
    best = model.summary.history["validation_loss"].idxmin()
    held_out = rows.where("held_out")
    assert accuracy(model.transform(held_out)) == pytest.approx(scores[best])


def test_a_fit_goes_by_f1_as_sparks_evaluator_defines_it(rows: DataFrame) -> None:
    estimator = small(validationIndicatorCol="held_out", finalWeights="last", maxIter=1)
    fitted = estimator.setValidationMetric("f1").fit(rows)
    predicted = fitted.transform(rows.where("held_out"))
    expected = MulticlassClassificationEvaluator(metricName="f1").evaluate(predicted)
    assert fitted.summary.history["validation_metric"].iloc[-1] == pytest.approx(expected)
    with pytest.raises(ParamError) as caught:
        estimator.setValidationMetric("areaUnderROC").fit(rows)
    assert set(caught.value.problems) == {"validationMetric"}


def test_progress_is_logged(rows: DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    estimator = small(maxIter=2, validationFraction=0.2)
    with caplog.at_level(logging.INFO, "sparknn"):
        estimator.fit(rows)
    before, after = [record.getMessage() for record in caplog.records[:2]]
    assert before == "Reading rows and shuffling them to 2 workers ..."
    assert after.startswith("Ingested ")
    records = [record for record in caplog.records if hasattr(record, "sparknn_round")]
    assert [record.sparknn_round.round for record in records] == [0, 1]
    assert {record.sparknn_uid for record in records} == {estimator.uid}
    first = records[0].getMessage()
    assert first.startswith("round 1/2  loss ")
    assert "validation loss" in first
    assert "accuracy" in first
    assert "rows/s" in first


def test_patience_ends_a_fit(rows: DataFrame) -> None:
    estimator = small(maxIter=12, validationIndicatorCol="held_out", patience=1, tol=0.5)
    assert estimator.fit(rows).summary.totalIterations < 12


def test_balanced_classes_weigh_the_same(spark: SparkSession) -> None:
    """'balanced' equals weights of 1 / the size of the class."""
    few = (Y[:200] > 0) | (np.arange(200) % 5 == 0)
    features, labels = X[:200][few], Y[:200][few]
    sizes = np.bincount(labels.astype(int))
    by_hand = len(labels) / (3 * sizes[labels.astype(int)])
    frame = table(spark, features, labels, w=by_hand)
    assert same_function(
        in_full_batches(classWeight="balanced", standardization=False).fit(frame),
        in_full_batches(weightCol="w", standardization=False).fit(frame),
    )


def test_a_class_in_the_middle_without_rows(rows: DataFrame) -> None:
    gap = small(maxIter=1).fit(rows.where("label <> 1"))
    assert gap.numClasses == 3
    assert gap.transform(rows).where("prediction = 1").count() < 40


def test_two_classes_have_two_raw_predictions(rows: DataFrame) -> None:
    binary = rows.where("label < 2").withColumn("label", F.col("label").cast("int"))
    row = small(maxIter=1).fit(binary).transform(binary).first()
    assert row is not None
    assert len(row.rawPrediction) == len(row.probability) == 2


def test_defaults_learn_digits(spark: SparkSession) -> None:
    """With nothing set. ``make bench-parity`` compares with other networks, over many splits."""
    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))
    train, test = rows[:1200], rows[1200:]
    model = NeuralNetClassifier(numWorkers=2).fit(table(spark, X[train], y[train]))
    assert np.mean(model.toLocal().predict(X[test]) == y[test]) > 0.95


def test_a_linear_model(rows: DataFrame) -> None:
    """Of the numbers, or of their pieces."""
    estimator = small(hiddenLayers=[])
    model, plain = estimator.fit(rows, [{}, {estimator.numericEncoding: "plain"}])
    assert plain.layers == [4, 3]
    assert len(model.layers) == 2
    assert min(accuracy(each.transform(rows)) for each in (model, plain)) > 0.7


def test_warm_start_begins_with_the_same_function(
    model: NeuralNetClassificationModel, rows: DataFrame, tmp_path: Any
) -> None:
    path = str(tmp_path / "model")
    model.save(path)
    tiny = small(maxIter=1, stepSize=1e-12)
    for initial, standardization in [(model, True), (path, False)]:
        again = tiny.copy({tiny.standardization: standardization})
        assert same_function(again.setInitialModel(initial).fit(rows), model)


def test_warm_start_continues(model: NeuralNetClassificationModel, rows: DataFrame) -> None:
    further = small(initialModel=model, maxIter=1).fit(rows)
    assert further.summary.objectiveHistory[0] < model.summary.objectiveHistory[1]


def test_warm_start_of_another_shape(model: NeuralNetClassificationModel, rows: DataFrame) -> None:
    n_inputs = model.layers[0]
    with pytest.raises(
        ValueError,
        match=rf"layers \[{n_inputs}, 8, 3\] and activation 'relu'; "
        rf"this fit has .*\[{n_inputs}, 9, 3\]",
    ):
        small(hiddenLayers=[9], initialModel=model).fit(rows)


def test_warm_start_takes_from_the_model_what_is_not_set(
    spark: SparkSession, model: NeuralNetClassificationModel
) -> None:
    """Its layers and activation, and classes that the new rows lack; in a map too."""
    X, y = blobs(60)
    rows = table(spark, X[y < 2], y[y < 2])
    fresh = NeuralNetClassifier(maxIter=1, numWorkers=2)
    further = fresh.fit(rows, {fresh.initialModel: model})
    assert further.network.layers == model.network.layers
    assert further.getHiddenLayers() == model.layers[1:-1] == [8]
    assert further.numClasses == 3
    assert fresh.getInitialModel() == ""
    with pytest.raises(ParamError, match="initialModel = 3"):
        fresh.fit(rows, {fresh.initialModel: 3})


def test_an_estimator_is_saved_with_the_model_it_continues_from(
    model: NeuralNetClassificationModel, rows: DataFrame, tmp_path: Any
) -> None:
    estimator = small(initialModel=model, maxIter=1)
    path = str(tmp_path / "estimator")
    estimator.save(path)
    again = NeuralNetClassifier.load(path)
    assert again.fit(rows).theta.tobytes() == estimator.fit(rows).theta.tobytes()
    with pytest.raises(ValueError, match="has no network"):
        small(initialModel=NeuralNetClassificationModel()).write().overwrite().save(path)
    assert NeuralNetClassifier.load(path).uid == estimator.uid


def test_a_model_keeps_rows_that_it_cannot_predict(model: NeuralNetClassificationModel) -> None:
    assert model.copy().setHandleInvalid("keep").getHandleInvalid() == "keep"
    with pytest.raises(ParamError, match="handleInvalid"):
        model.copy().setHandleInvalid("ignore")
