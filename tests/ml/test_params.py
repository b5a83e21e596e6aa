"""Every param is declared once, checked when it is set, and can be stored as JSON."""

import inspect
import json
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from pyspark.ml.param import Param
from pyspark.sql import SparkSession

from sparknn import (
    MultilayerPerceptronClassifier,
    NeuralNetClassificationModel,
    NeuralNetClassifier,
    NeuralNetRegressionModel,
    NeuralNetRegressor,
)
from sparknn.ml.checked_params import AUTO, CheckedParam, ParamError
from sparknn.ml.keywords import ClassifierKeywords, PerceptronKeywords, RegressorKeywords

ESTIMATORS = [NeuralNetClassifier, NeuralNetRegressor]
STAGES = [*ESTIMATORS, NeuralNetClassificationModel, NeuralNetRegressionModel]


@pytest.mark.parametrize(
    ("estimator", "keywords"),
    [
        (NeuralNetClassifier, ClassifierKeywords),
        (NeuralNetRegressor, RegressorKeywords),
        (MultilayerPerceptronClassifier, PerceptronKeywords),
    ],
)
def test_keywords_are_the_params(estimator: Any, keywords: Any) -> None:
    names = {param.name for param in estimator().params}
    assert set(get_type_hints(keywords)) == names
    assert set(inspect.signature(estimator).parameters) == names
    assert set(inspect.signature(estimator.setParams).parameters) == {"self", *names}


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_param_is_complete(stage: Any) -> None:
    made = stage()
    for param in made.params:
        assert param.doc.strip()
        assert callable(getattr(made, "get" + param.name[0].upper() + param.name[1:]))
        if isinstance(param, CheckedParam) and made.hasDefault(param):
            default = made.getOrDefault(param)
            assert json.loads(json.dumps(default)) == default
            made.set(param, default)
            assert made.getOrDefault(param) == default


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_setters_chain_and_getters_return(estimator: Any) -> None:
    made = estimator()
    values = {
        "featuresCol": "f",
        "labelCol": "l",
        "predictionCol": "p",
        "weightCol": "w",
        "rawPredictionCol": "r",
        "probabilityCol": "q",
        "validationIndicatorCol": "v",
        "thresholds": [0.5, 0.5],
        "initialModel": "/models/a",
        "checkpointDir": "/checkpoints",
        "checkpointInterval": -1,
        "contributionsCol": "c",
        "loss": "huber",
    }
    for param in made.params:
        value = values.get(param.name, made.getOrDefault(param) if made.hasDefault(param) else None)
        title = param.name[0].upper() + param.name[1:]
        assert getattr(made, "set" + title)(value) is made
        assert getattr(made, "get" + title)() == value


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_mistakes_are_reported_at_once(estimator: Any) -> None:
    with pytest.raises(ParamError) as raised:
        estimator(
            hidenLayers=[3],
            maxIter=0,
            activation="rellu",
            dropout=float("nan"),
            stepSize="fast",
            batchSize=2.5,
            hiddenLayers=[10, 0],
            shuffle=1,
            averaging="Nesterof",
            averagingRate=1.0,
        )
    text = str(raised.value)
    assert len(raised.value.problems) == 10
    assert "hidenLayers: there is no such param; did you mean 'hiddenLayers'?" in text
    assert "averagingRate was removed: set a smaller or larger averagingMomentum." in text
    assert "did you mean 'relu'?" in text
    assert "did you mean 'nesterov'?" in text
    assert "maxIter = 0; expected a number >= 1." in text
    assert "stepSize = 'fast'; expected a number or 'auto'." in text
    assert "shuffle = 1; expected True or False." in text
    # Both of what Python and pyspark raise for such mistakes.
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("maxIter", -1),
        ("hiddenLayers", "100"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("stepSize", 0.0),
        ("stepSize", float("inf")),
        ("regParam", -1e-9),
        ("miniBatchFraction", 0.0),
        ("momentum", 1.0),
        ("validationFraction", 1.0),
        ("numWorkers", -1),
        ("patience", -1),
        ("seed", 1.5),
        ("solver", "Adam "),
        ("handleInvalid", "impute"),
        ("numericEncoding", "quantiles"),
        ("categorical", 1),
        ("categoricalFeatures", "color"),
        ("categoricalFeatures", [0.5]),
        ("averagingMomentum", "none"),
        ("featuresCol", 3),
        ("checkpointInterval", 0),
        ("checkpointInterval", -2),
        ("checkpointDir", Path("/checkpoints")),
        ("shardDir", "dbfs:/shards"),
        ("shardDir", "shards"),
    ],
)
def test_values_out_of_range_are_refused(name: str, bad: Any) -> None:
    classifier = NeuralNetClassifier()
    before = classifier.extractParamMap()
    for attempt in (
        lambda: NeuralNetClassifier(**{name: bad}),
        lambda: classifier.setParams(**{name: bad}),
        lambda: classifier.set(classifier.getParam(name), bad),
        lambda: classifier.copy({classifier.getParam(name): bad}),
    ):
        with pytest.raises(ParamError, match=name):
            attempt()
    assert classifier.extractParamMap() == before


def test_a_map_reports_all_its_mistakes() -> None:
    regressor = NeuralNetRegressor()
    with pytest.raises(ParamError) as raised:
        regressor.copy({regressor.maxIter: 0, regressor.loss: "square"})
    assert set(raised.value.problems) == {"maxIter", "loss"}


@pytest.mark.parametrize("good", [[0.2, 0.8], (0, 1), np.array([0.5, 0.5])])
def test_thresholds(good: Any) -> None:
    assert NeuralNetClassifier(thresholds=good).getThresholds() == [float(v) for v in good]


@pytest.mark.parametrize("bad", [[-1.0, 1.0], [0.0, 0.0, 1.0], [float("nan"), 1.0], 0.5, [], [1]])
def test_bad_thresholds(bad: Any) -> None:
    with pytest.raises(ParamError, match="thresholds"):
        NeuralNetClassifier(thresholds=bad)


def test_numbers_are_stored_as_json_values() -> None:
    classifier = NeuralNetClassifier(
        hiddenLayers=np.array([5, 3]), stepSize=np.float64(0.1), maxIter=3.0, seed=np.int64(4)
    )
    stored = {p.name: v for p, v in classifier.extractParamMap().items()}
    assert json.loads(json.dumps(stored)) == stored
    assert stored["hiddenLayers"] == [5, 3]


def test_none_means_not_set() -> None:
    classifier = NeuralNetClassifier(weightCol=None, thresholds=None, maxIter=None)
    assert not classifier.isSet("weightCol")
    assert not classifier.isDefined("thresholds")
    assert classifier.getMaxIter() == AUTO
    assert classifier.setWeightCol("w").setWeightCol(None).isDefined("weightCol") is False


def test_clear_brings_the_default_back() -> None:
    classifier = NeuralNetClassifier(maxIter=3)
    classifier.clear(classifier.maxIter)
    assert classifier.getMaxIter() == AUTO


def test_copies_are_isolated() -> None:
    classifier = NeuralNetClassifier(maxIter=3)
    copied = classifier.copy({classifier.stepSize: 0.5})
    assert copied.uid == classifier.uid
    assert copied.getStepSize() == 0.5
    assert copied.getMaxIter() == 3
    copied.setMaxIter(7)
    assert classifier.getMaxIter() == 3
    assert classifier.getStepSize() == AUTO


def test_explain_params_reads_well() -> None:
    text = NeuralNetClassifier(maxIter=3).explainParams()
    assert "maxIter: number of rounds; 'auto' is" in text
    assert "(default: auto, current: 3)" in text
    assert "momentum of the solvers momentum and ngsgd" in text
    assert "(default: 0.9)" in text


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="positional"):
        NeuralNetClassifier([100])  # type: ignore[call-arg,misc]


def test_help_shows_params_and_defaults() -> None:
    signature = inspect.signature(NeuralNetClassifier)
    assert signature.parameters["maxIter"].default == AUTO
    assert signature.parameters["patience"].default == 0
    assert "hiddenLayers" in (NeuralNetClassifier.__doc__ or "")
    doc = "Set ``seed``: seed of every random choice in a fit."
    assert NeuralNetClassifier.setSeed.__doc__ == doc


def test_constructors_need_no_session() -> None:
    before = SparkSession.getActiveSession()
    for stage in STAGES:
        assert isinstance(stage().maxIter, Param)
    assert SparkSession.getActiveSession() is before


def test_an_initial_model_of_another_kind_is_refused() -> None:
    with pytest.raises(ParamError, match="is a NeuralNetRegressionModel; expected a"):
        NeuralNetClassifier(initialModel=NeuralNetRegressionModel())
    with pytest.raises(ParamError, match="initialModel = 3; expected a fitted model, or the path"):
        NeuralNetClassifier(initialModel=3)


def test_an_initial_model_object_survives_copies_and_is_replaced_by_a_path() -> None:
    model = NeuralNetClassificationModel()
    classifier = NeuralNetClassifier().setInitialModel(model)
    assert classifier.copy().getInitialModel() is model
    assert "current: NeuralNetClassificationModel" in classifier.explainParam("initialModel")
    with_path = classifier.copy({classifier.initialModel: Path("/models/a")})
    assert with_path.getInitialModel() == "/models/a"
    assert classifier.getInitialModel() is model
    classifier.clear(classifier.initialModel)
    assert classifier.getInitialModel() == ""


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    assert NeuralNetClassifier(stepSize=kind(1)).getStepSize() == 1.0
    assert type(NeuralNetClassifier(maxIter=np.int32(7)).getMaxIter()) is int


def test_a_setter_that_is_missing_names_its_neighbour() -> None:
    with pytest.raises(AttributeError, match="setHiddenLayers"):
        NeuralNetClassifier().setLayers([3])  # type: ignore[attr-defined]
    assert not hasattr(NeuralNetClassifier(), "__cuda_array__")
