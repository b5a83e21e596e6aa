"""Check row weights: 0 drops a row, 2 repeats it, and a common factor changes nothing."""

from typing import Any

import numpy as np
import pytest
from pyspark.ml.classification import OneVsRest
from pyspark.sql import SparkSession
from tables import table
from toys import blobs, curve

from sparknn import NeuralNetClassifier, NeuralNetRegressor

N = 90
WEIGHTS = np.arange(N) % 3 * 1.0
DATA = {NeuralNetClassifier: blobs(N), NeuralNetRegressor: curve(N, k=2)}

# One worker and one plain step per round over all rows: the order of rows does not matter.
FULL = {"numWorkers": 1, "batchSize": 10_000, "solver": "sgd", "stepSize": 0.1, "maxIter": 3}


def outputs(model: Any, X: Any) -> Any:
    return model.toLocal().predict_raw(X.astype(np.float64))


@pytest.mark.parametrize("kind", DATA)
def test_weights_are_counts(spark: SparkSession, kind: Any) -> None:
    """Means and deviations for the standardisation included."""
    X, y = DATA[kind]
    estimator = kind(**FULL)
    settings = [{}, {"regParam": 0.1}, {"standardization": False}, {"solver": "ngsgd"}]
    maps = [{estimator.getParam(k): v for k, v in each.items()} for each in settings]
    frame = table(spark, X, y, w=WEIGHTS)
    counted = np.repeat(np.arange(N), WEIGHTS.astype(int))
    unweighted = estimator.fit(frame, maps)
    repeated = estimator.fit(table(spark, X[counted], y[counted]), maps)
    weighted = estimator.setWeightCol("w").fit(frame, maps)
    for one, other, plain in zip(weighted, repeated, unweighted, strict=True):
        assert one.summary.n_rows == np.count_nonzero(WEIGHTS)
        np.testing.assert_allclose(outputs(one, X), outputs(other, X), rtol=1e-4, atol=1e-5)
        assert not np.allclose(outputs(one, X), outputs(plain, X), rtol=1e-3)


def test_only_the_ratio_of_weights_counts(spark: SparkSession) -> None:
    """On several workers with mini-batches, too: a power of two changes no bit.

    Not even one that float32, in which the networks compute, has no number for. The penalty is set,
    as by default it depends on how many rows there are, and so on what is counted as one.
    """
    X, y = DATA[NeuralNetClassifier]
    estimator = NeuralNetClassifier(
        hiddenLayers=[5], maxIter=2, numWorkers=2, batchSize=16, regParam=0.01
    )
    factors = {"one": 1.0, "huge": 2.0**900, "tiny": 2.0**-160}
    frame = table(spark, X, y, **{name: np.full(N, by) for name, by in factors.items()})
    plain = estimator.fit(frame)
    for column in factors:
        model = estimator.fit(frame, {estimator.weightCol: column})
        assert model.theta.tobytes() == plain.theta.tobytes(), column


def test_weights_of_validation_rows(spark: SparkSession) -> None:
    """The validation loss equals that of rows repeated as often as their weight."""
    X, y = DATA[NeuralNetClassifier]
    held_out = np.arange(N) % 2 == 0
    counted = np.repeat(np.arange(N), WEIGHTS.astype(int))
    estimator = NeuralNetClassifier(**FULL, validationIndicatorCol="held_out")
    weighted = estimator.fit(
        table(spark, X, y, w=WEIGHTS, held_out=held_out), {estimator.weightCol: "w"}
    )
    repeated = estimator.fit(table(spark, X[counted], y[counted], held_out=held_out[counted]))
    for column in ("loss", "validation_loss", "validation_metric"):
        found, expected = (model.summary.history[column] for model in (weighted, repeated))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_one_vs_rest_passes_weights_on(spark: SparkSession) -> None:
    X, y = DATA[NeuralNetClassifier]
    frame = table(spark, X, y, w=WEIGHTS)
    one_vs_rest = OneVsRest(classifier=NeuralNetClassifier(**FULL))
    weighted = one_vs_rest.copy({one_vs_rest.weightCol: "w"}).fit(frame)
    dropped = one_vs_rest.fit(frame.where("w > 0").union(frame.where("w = 2")))
    for one, other in zip(weighted.models, dropped.models, strict=True):
        np.testing.assert_allclose(outputs(one, X), outputs(other, X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "says"), [(-1.0, "negative"), (float("nan"), "NaN"), (1e291, r".*beyond 1e\+290")]
)
def test_weights_that_are_none(spark: SparkSession, weight: float, says: str) -> None:
    X, y = DATA[NeuralNetClassifier]
    frame = table(spark, X, y, w=np.where(np.arange(N) == 4, weight, 1.0))
    with pytest.raises(ValueError, match=f"'w' is {says}.* in 1 of {N} rows"):
        NeuralNetClassifier(**FULL, weightCol="w").fit(frame)


def test_weights_that_are_all_0(spark: SparkSession) -> None:
    X, y = DATA[NeuralNetClassifier]
    with pytest.raises(ValueError, match=f"{N} have weight 0 in column 'w'"):
        NeuralNetClassifier(**FULL, weightCol="w").fit(table(spark, X, y, w=np.zeros(N)))
