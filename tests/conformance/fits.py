"""Check what ``fit`` may change."""

import numpy as np

from conformance.subject import Subject, answers, same_model


def check_fit_leaves_params_alone(subject: Subject) -> None:
    estimator = subject.other()
    before = dict(vars(estimator)), estimator.extractParamMap(), dict(estimator._paramMap)
    model = estimator.fit(subject.data)
    assert (dict(vars(estimator)), estimator.extractParamMap(), estimator._paramMap) == before
    # The model's params are its own from then on.
    estimator.setPredictionCol("other")
    assert model.getPredictionCol() == subject.estimator.getPredictionCol()


def check_refit_is_idempotent(subject: Subject) -> None:
    """The same params and rows give the same bytes, whatever was fitted in between."""
    estimator = subject.other()
    estimator.fit(subject.data, {estimator.seed: estimator.getSeed() + 1, estimator.maxIter: 1})
    assert same_model(estimator.fit(subject.data), subject.model)


def check_fit_with_maps_equals_single_fits(subject: Subject) -> None:
    """With maps in one list, that share rows or do not; with one map; with none."""
    estimator = subject.estimator
    maps = [
        {},
        subject.params(hiddenLayers=[3, 3], activation="tanh", regParam=0.01, maxIter=2),
        subject.params(seed=11, stepSize=0.02, predictionCol="guess"),
        subject.params(solver="adam", dropout=0.2, standardization=False),
    ]
    if subject.classifies:
        maps[-1] |= subject.params(classWeight="balanced")
    together = estimator.fit(subject.data, maps)
    assert len(together) == len(maps)
    assert same_model(together[0], subject.model)
    for model, paramMap in zip(together[1:], maps[1:], strict=True):
        single = estimator.fit(subject.data, paramMap)
        assert same_model(model, single)
        assert model.extractParamMap() == single.extractParamMap()
        assert model.uid == estimator.uid
    assert estimator.fit(subject.data, []) == []


def check_params_are_overridden_in_fit(subject: Subject) -> None:
    """Output columns included, both in ``fit`` and in ``transform``."""
    estimator = subject.estimator
    model = estimator.fit(subject.data, subject.params(predictionCol="guess", maxIter=1))
    assert model.summary.totalIterations == 1
    predicted = model.transform(subject.data)
    assert "guess" in predicted.columns
    assert estimator.getPredictionCol() not in predicted.columns
    again = model.transform(subject.data, {estimator.predictionCol: "other"})
    assert "other" in again.columns
    assert model.getPredictionCol() == "guess"


def check_predict_equals_transform(subject: Subject) -> None:
    """One row without a Spark job, and all of them without Spark."""
    model = subject.model
    predicted = model.transform(subject.data).orderBy("id").head(3)
    for row in predicted:
        features = row[model.getFeaturesCol()]
        assert model.predict(features) == row[model.getPredictionCol()]
        if subject.classifies:
            assert model.predictRaw(features) == row[model.getRawPredictionCol()]
            assert model.predictProbability(features) == row[model.getProbabilityCol()]
    local = model.toLocal().predict(subject.X)
    answered = answers(model.transform(subject.data).select("id", model.getPredictionCol()))
    assert np.array_equal(local.reshape(len(local), -1), answered)


def check_it_learns(subject: Subject) -> None:
    """Better than a constant prediction, also by the history."""
    score = subject.evaluator().evaluate(subject.model.transform(subject.data))
    floor = max(np.unique(subject.y, return_counts=True)[1]) / len(subject.y)
    assert score > (floor if subject.classifies else 0) + 0.1
    losses = subject.model.summary.objectiveHistory
    assert losses[-1] < losses[0]
    assert len(losses) == subject.model.summary.totalIterations == subject.estimator.getMaxIter()
