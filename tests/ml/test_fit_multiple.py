"""Check that parameter maps train in one pass, and give the models of separate fits."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import blobs

import sparknn.ml.fit as train_module
from sparknn import NeuralNetClassifier
from sparknn.core.training.fit_state import DivergedError
from sparknn.ml.checked_params import ParamError
from sparknn.ml.schema import SchemaError


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    frame = table(spark, *blobs(300)).cache()
    yield frame
    frame.unpersist()


@pytest.fixture
def ingests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The DataSpec of every engine that is opened."""
    opened = []
    original = train_module.open_engine

    def counted(df: DataFrame, spec: Any, depth: int = 2) -> Any:
        opened.append(spec)
        return original(df, spec, depth)

    monkeypatch.setattr(train_module, "open_engine", counted)
    return opened


def small(**params: Any) -> NeuralNetClassifier:
    return NeuralNetClassifier(**{"hiddenLayers": [6], "maxIter": 3, "numWorkers": 2, **params})


def test_maps_that_change_the_data_spec_form_groups(rows: DataFrame, ingests: list[Any]) -> None:
    classifier = small(maxIter=1)
    maps = [{classifier.seed: s, classifier.stepSize: r} for s in (1, 2) for r in (0.1, 0.2)]
    iterator = classifier.fitMultiple(rows, maps)
    assert ingests == []
    found = dict(iterator)
    assert sorted(found) == [0, 1, 2, 3]
    assert [spec.seed for spec in ingests] == [1, 2]
    assert [found[i].getSeed() for i in range(4)] == [1, 1, 2, 2]


def test_threads_share_the_iterator(rows: DataFrame, ingests: list[Any]) -> None:
    classifier = small(maxIter=1)
    iterator = classifier.fitMultiple(rows, [{classifier.stepSize: 0.1 * i} for i in range(1, 7)])
    barrier = threading.Barrier(6)

    def take(_: int) -> tuple[int, Any]:
        barrier.wait()
        return next(iterator)

    with ThreadPoolExecutor(6) as pool:
        found = dict(pool.map(take, range(6)))
    assert sorted(found) == list(range(6))
    assert len(ingests) == 1
    with pytest.raises(StopIteration):
        next(iterator)


def test_the_estimator_may_change_once_the_maps_are_given(rows: DataFrame) -> None:
    classifier = small(maxIter=1)
    iterator = classifier.fitMultiple(rows, [{}])
    classifier.setHiddenLayers([2])
    assert next(iterator)[1].layers[1:] == [6, 3]


def test_networks_beyond_one_message_train_in_turns(
    rows: DataFrame, ingests: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = small(maxIter=2)
    maps = [{classifier.stepSize: step} for step in (0.1, 0.2, 0.3)]
    together = classifier.fit(rows, maps)
    monkeypatch.setattr("sparknn.core.training.rounds._MAX_MESSAGE_BYTES", 1)
    in_turns = classifier.fit(rows, maps)
    assert len(ingests) == 2
    for one, other in zip(together, in_turns, strict=True):
        assert one.theta.tobytes() == other.theta.tobytes()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"dropout": 2.0, "activation": "rellu"}, ParamError),
        ({"weightCol": "absent"}, SchemaError),
        ({"patience": 3}, ParamError),
    ],
)
def test_a_bad_map_is_named_before_anything_runs(
    rows: DataFrame, ingests: list[Any], wrong: dict[str, Any], error: type[Exception]
) -> None:
    classifier = small()
    bad = {classifier.getParam(name): value for name, value in wrong.items()}
    with pytest.raises(error) as raised:
        classifier.fitMultiple(rows, [{classifier.maxIter: 1}, bad])
    (note,) = raised.value.__notes__
    assert note.startswith("In map 2 of 2: {")
    assert all(f"{name}={value!r}" in note for name, value in wrong.items())
    assert ingests == []


def test_maps_of_another_estimator_are_refused(rows: DataFrame) -> None:
    classifier, other = small(), small()
    for maps in ({other.maxIter: 1}, [{other.maxIter: 1}]):
        with pytest.raises(ValueError, match=f"belongs to {other.uid}; this estimator is"):
            classifier.fit(rows, maps)
    for maps in ({type(classifier).maxIter: 1}, [{type(classifier).maxIter: 1}]):
        with pytest.raises(ValueError, match=r"not to an instance\. Use estimator\.maxIter"):
            classifier.fit(rows, maps)
    with pytest.raises(TypeError, match="A parameter map is a int"):
        classifier.fit(rows, [3])  # type: ignore[list-item,call-overload]


def test_only_the_map_that_diverges_raises(rows: DataFrame) -> None:
    classifier = small(maxIter=5, solver="sgd", maxChange=0.0, stepSizeSchedule="constant")
    maps = [{classifier.stepSize: 0.1}, {classifier.stepSize: 1e6}, {classifier.stepSize: 0.2}]
    iterator = classifier.fitMultiple(rows, maps)
    single = classifier.fit(rows, maps[2])
    assert next(iterator)[0] == 0
    with pytest.raises(DivergedError) as raised:
        next(iterator)
    assert "In map 2 of 3: {stepSize=1000000.0}" in raised.value.__notes__
    index, model = next(iterator)
    assert index == 2
    assert model.theta.tobytes() == single.theta.tobytes()
    with pytest.raises(DivergedError):
        classifier.fit(rows, maps[1])


def test_rows_that_cannot_be_used_fail_every_map(spark: SparkSession) -> None:
    X, y = blobs(20)
    frame = table(spark, X, y - 1)
    classifier = small()
    iterator = classifier.fitMultiple(frame, [{}, {classifier.maxIter: 1}])
    for _ in range(2):
        with pytest.raises(ValueError, match="negative"):
            next(iterator)


def test_cross_validation_ingests_once_per_fold(rows: DataFrame, ingests: list[Any]) -> None:
    classifier = small(maxIter=2)
    grid = (
        ParamGridBuilder()
        .addGrid(classifier.stepSize, [0.05, 0.2])
        .addGrid(classifier.predictionCol, ["prediction"])
        .addGrid(classifier.hiddenLayers, [[4], [8]])
        .build()
    )
    validator = CrossValidator(
        estimator=classifier,
        estimatorParamMaps=grid,
        evaluator=MulticlassClassificationEvaluator(metricName="accuracy"),
        numFolds=2,
        parallelism=4,
        seed=1,
    )
    model = validator.fit(rows)
    # Two folds, and the fit of the best map on all rows.
    assert len(ingests) == 3
    assert len(model.avgMetrics) == 4
    assert np.min(model.avgMetrics) > 0.5
    assert model.bestModel.uid == classifier.uid
