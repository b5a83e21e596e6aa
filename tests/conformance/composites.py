"""Check the estimator inside all of Spark ML's composites."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from pyspark.ml import Model, Pipeline
from pyspark.ml.classification import OneVsRest
from pyspark.ml.feature import StandardScaler
from pyspark.ml.tuning import (
    CrossValidator,
    ParamGridBuilder,
    TrainValidationSplit,
)

from conformance.subject import Subject, answers, same_model


@dataclass(frozen=True)
class Fitted:
    """A composite and its model."""

    estimator: Any
    model: Any


@cache
def pipeline(subject: Subject) -> Fitted:
    """A pipeline in a pipeline."""
    scaler = StandardScaler(inputCol=subject.estimator.getFeaturesCol(), outputCol="scaled")
    inner = Pipeline(stages=[subject.other(featuresCol="scaled")])
    return _fitted(subject, Pipeline(stages=[scaler, inner]))


@cache
def cross_validator(subject: Subject) -> Fitted:
    """A grid with an output column, trained in threads."""
    estimator = subject.other()
    grid = (
        ParamGridBuilder()
        .baseOn({estimator.predictionCol: estimator.getPredictionCol()})
        .addGrid(estimator.hiddenLayers, [[], [6]])
        .build()
    )
    return _fitted(
        subject,
        CrossValidator(
            estimator=estimator,
            estimatorParamMaps=grid,
            evaluator=subject.evaluator(),
            numFolds=2,
            parallelism=2,
            seed=1,
            collectSubModels=True,
        ),
    )


@cache
def train_validation_split(subject: Subject) -> Fitted:
    """Of a whole pipeline, with maps of the estimator in it."""
    estimator = subject.other()
    grid = ParamGridBuilder().addGrid(estimator.stepSize, [1e-4, 0.05]).build()
    return _fitted(
        subject,
        TrainValidationSplit(
            estimator=Pipeline(stages=[estimator]),
            estimatorParamMaps=grid,
            evaluator=subject.evaluator(),
            parallelism=2,
            seed=1,
        ),
    )


@cache
def continuation(subject: Subject) -> Fitted:
    """A grid over networks to start from: none, a model, and the path of one, used in threads."""
    path = str(subject.folder / "to-continue-from")
    subject.model.write().overwrite().save(path)
    estimator = subject.other(maxIter=1, stepSize=1e-9)
    grid = ParamGridBuilder().addGrid(estimator.initialModel, ["", subject.model, path]).build()
    return _fitted(
        subject,
        CrossValidator(
            estimator=estimator,
            estimatorParamMaps=grid,
            evaluator=subject.evaluator(),
            numFolds=2,
            parallelism=2,
            seed=1,
            collectSubModels=True,
        ),
    )


@cache
def one_vs_rest(subject: Subject) -> Fitted:
    """Several binary networks."""
    estimator = subject.other()
    names = ("featuresCol", "labelCol", "predictionCol")
    columns = {name: estimator.getOrDefault(name) for name in names}
    return _fitted(subject, OneVsRest(classifier=estimator, parallelism=2, **columns))


def _fitted(subject: Subject, estimator: Any) -> Fitted:
    return Fitted(estimator, estimator.fit(subject.data))


def check_pipelines(subject: Subject) -> None:
    fitted = pipeline(subject)
    model = fitted.model.stages[1].stages[0]
    assert model.uid == subject.estimator.uid
    assert model.getFeaturesCol() == "scaled"
    # A map reaches a stage in a pipeline in a pipeline, when transforming too.
    predicted = fitted.model.transform(subject.data, {model.predictionCol: "guess"})
    assert "guess" in predicted.columns
    fewer = fitted.estimator.fit(subject.data, subject.params(maxIter=1))
    assert fewer.stages[1].stages[0].summary.totalIterations == 1


def check_cross_validator(subject: Subject) -> None:
    fitted = cross_validator(subject)
    model = fitted.model
    assert np.isfinite(model.avgMetrics).all()
    best = int(np.argmax(model.avgMetrics))
    grid = fitted.estimator.getEstimatorParamMaps()
    alone = fitted.estimator.getEstimator().fit(subject.data, grid[best])
    assert np.array_equal(
        answers(alone.transform(subject.data)), answers(model.transform(subject.data))
    )
    for submodels in model.subModels:
        for paramMap, submodel in zip(grid, submodels, strict=True):
            assert submodel.extractParamMap().items() >= paramMap.items()
            assert submodel.theta.tobytes() != alone.theta.tobytes()


def check_train_validation_split(subject: Subject) -> None:
    fitted = train_validation_split(subject)
    slow, quick = fitted.model.validationMetrics
    assert quick > slow
    assert fitted.model.bestModel.stages[0].getStepSize() == 0.05


def check_continuation(subject: Subject) -> None:
    """With tiny steps, so that a model stays like its initial model, and beats a new network."""
    fitted = continuation(subject)
    from_scratch, model, path = fitted.model.avgMetrics
    # Spark adds a metric's terms up in whatever order tasks end.
    assert model == pytest.approx(path, rel=1e-12)
    assert model > from_scratch + 0.1
    known = subject.model.toLocal().predict(subject.X)
    for _, *continued in fitted.model.subModels:
        for submodel in continued:
            assert np.allclose(submodel.toLocal().predict(subject.X), known, rtol=1e-3)
            assert not isinstance(submodel.getInitialModel(), Model)
    # A saved grid is loaded again, with the model in it.
    saved = str(subject.folder / "continuation")
    fitted.estimator.write().overwrite().save(saved)
    for paramMap in CrossValidator.load(saved).getEstimatorParamMaps()[1:2]:
        (again,) = paramMap.values()
        assert same_model(again, subject.model)
    if subject.classifies:
        with pytest.raises(ValueError, match=r"this fit has .* 2\]"):
            OneVsRest(
                classifier=subject.other(initialModel=str(subject.folder / "to-continue-from")),
                featuresCol=subject.estimator.getFeaturesCol(),
                labelCol=subject.estimator.getLabelCol(),
                parallelism=2,
            ).fit(subject.data)


def check_one_vs_rest(subject: Subject) -> None:
    if not subject.classifies:
        return
    model = one_vs_rest(subject).model
    assert [binary.numClasses for binary in model.models] == [2] * len(np.unique(subject.y))
    predicted = model.transform(subject.data)
    share = np.bincount(subject.y.astype(int)).max() / len(subject.y)
    assert subject.evaluator().evaluate(predicted) > share + 0.1
