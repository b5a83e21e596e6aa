"""Check the state of a model: its network, its parameters and its params."""

import pickle

import numpy as np
import pytest
from models import classifier, record, regressor, rows
from pyspark.ml.classification import ProbabilisticClassificationModel
from pyspark.ml.linalg import DenseVector, Vectors
from pyspark.ml.regression import RegressionModel

from sparknn import NeuralNetClassificationModel, NeuralNetRegressionModel
from sparknn.core.nn.network import Network
from sparknn.ml.summary import TrainingSummary


def test_its_properties() -> None:
    model = classifier(4, 6, 3)
    assert (model.numFeatures, model.numClasses, model.layers) == (4, 3, [4, 6, 3])
    assert model.network == Network((4, 6, 3))
    assert model.weights is model.theta
    assert model.theta.dtype == np.float32
    assert repr(model).startswith(f"NeuralNetClassificationModel: uid={model.uid}, layers=4-6-3")
    assert isinstance(model, ProbabilisticClassificationModel)
    several = regressor(4, 2)
    assert (several.numTargets, several.numFeatures) == (2, 4)
    assert isinstance(several, RegressionModel)


def test_theta_is_a_read_only_copy() -> None:
    network = Network((2, 2))
    given = np.zeros(network.n_params, dtype=np.float32)
    model = NeuralNetClassificationModel(network, given)
    given[:] = 1
    assert not model.theta.any()
    with pytest.raises(ValueError, match="read-only"):
        model.theta[0] = 1


@pytest.mark.parametrize("kind", [NeuralNetClassificationModel, NeuralNetRegressionModel])
def test_an_empty_model(kind: type) -> None:
    model = kind()
    assert (model.numFeatures, model.hasSummary) == (-1, False)
    assert not any(
        model.hasParam(name) for name in ("numClasses", "numTargets", "network", "layers")
    )
    assert "empty" in repr(model)
    for ask in (lambda: model.theta, lambda: model.predict([1.0]), model.toLocal):
        with pytest.raises(ValueError, match=r"has no network.*load\(path\)"):
            ask()


def test_a_network_and_its_theta_belong_together() -> None:
    network = Network((2, 2))
    with pytest.raises(ValueError, match="or neither"):
        NeuralNetClassificationModel(network)
    with pytest.raises(ValueError, match=r"theta has shape \(3,\); expected \(6,\)"):
        NeuralNetClassificationModel(network, np.zeros(3, dtype=np.float32))


def test_one_row_without_spark() -> None:
    model, X = classifier(4, 6, 3), rows(1, 4)
    local = model.toLocal()
    for row in (X[0], X[0].tolist(), Vectors.dense(X[0]), Vectors.sparse(4, dict(enumerate(X[0])))):
        assert model.predict(row) == local.predict(X)[0]
        assert isinstance(model.predict(row), float)
        assert model.predictRaw(row) == DenseVector(local.predict_raw(X)[0])
        assert model.predictProbability(row) == DenseVector(local.predict_proba(X)[0])
    assert isinstance(regressor(4, 1).predict(X[0]), float)
    assert isinstance(regressor(4, 2).predict(X[0]), DenseVector)


@pytest.mark.parametrize("row", [[1.0], [[1.0] * 4], Vectors.dense([1.0] * 5)])
def test_one_row_of_another_shape(row: object) -> None:
    with pytest.raises(ValueError, match=r"expected one row, \(4,\)"):
        classifier(4, 3).predict(row)  # type: ignore[arg-type]


def test_a_copy_has_its_own_params_and_the_same_network() -> None:
    model = classifier(4, 3, summary=TrainingSummary([record(0)]))
    copied = model.copy({model.thresholds: [0.2, 0.3, 0.5]})
    assert copied.uid == model.uid
    assert copied.theta is model.theta
    assert copied.summary is model.summary
    assert not model.isDefined(model.thresholds)
    assert copied.toLocal().thresholds == (0.2, 0.3, 0.5)
    copied.setPredictionCol("label_")
    assert model.getPredictionCol() == "prediction"


def test_setters_chain() -> None:
    model = (
        classifier(4, 3)
        .setFeaturesCol("f")
        .setPredictionCol("p")
        .setProbabilityCol("q")
        .setRawPredictionCol("r")
        .setThresholds([1, 1, 1])
        .setHandleInvalid("keep")
    )
    assert model.getHandleInvalid() == "keep"
    assert model.getThresholds() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="'error', 'skip' or 'keep'"):
        model.setHandleInvalid("keeps")


def test_no_summary() -> None:
    with pytest.raises(RuntimeError, match="check hasSummary first"):
        _ = classifier(4, 3).summary


def test_it_pickles() -> None:
    model, X = classifier(4, 6, 3).setPredictionCol("p"), rows(1, 4)
    again = pickle.loads(pickle.dumps(model))
    assert again.getPredictionCol() == "p"
    assert again.predictRaw(X[0]) == model.predictRaw(X[0])
