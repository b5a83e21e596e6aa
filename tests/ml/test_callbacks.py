"""Watch a fit round by round, and stop it."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import blobs

from sparknn import NeuralNetClassifier
from sparknn.ml.callbacks import Callback, FinishedRound


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    frame = table(spark, *blobs(200)).cache()
    yield frame
    frame.unpersist()


def watched(*callbacks: Callback, **params: Any) -> NeuralNetClassifier:
    given = {"hiddenLayers": [4], "maxIter": 4, "numWorkers": 2, **params}
    return NeuralNetClassifier(**given).setCallbacks(callbacks)


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_a_callback_sees_every_round_and_stops_the_fit(
    rows: DataFrame, fraction: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[FinishedRound] = []

    def stop(ended: FinishedRound) -> bool:
        seen.append(ended)
        return ended.round == 1

    estimator = watched(
        stop, validationFraction=fraction, checkpointDir=str(tmp_path), checkpointInterval=1
    )
    with caplog.at_level(logging.INFO, "sparknn"):
        model = estimator.fit(rows)
    assert [(each.round, each.progress, each.estimator) for each in seen] == [
        (0, 0.25, estimator),
        (1, 0.5, estimator),
    ]
    assert model.summary.objectiveHistory[:2] == [each.loss for each in seen]
    assert "Stopped by a callback." in caplog.messages
    # A fit that is stopped has ended: there is nothing to resume.
    assert list(tmp_path.iterdir()) == []


def test_a_callback_knows_its_map_and_fails_only_that(rows: DataFrame) -> None:
    seen: set[tuple[int, int, int]] = set()

    def watch(ended: FinishedRound) -> None:
        seen.add((ended.map_index, ended.n_maps, ended.estimator.getMaxIter()))
        if ended.map_index == 1:
            raise KeyError("watch")

    estimator = watched(watch)
    # The last map reads its rows in another way.
    maps = [
        {estimator.maxIter: 2},
        {estimator.maxIter: 3},
        {estimator.maxIter: 1, estimator.seed: 7},
    ]
    models = estimator.fitMultiple(rows, maps)
    assert next(models)[1].summary.totalIterations == 2
    with pytest.raises(KeyError, match="watch"):
        next(models)
    assert next(models)[0] == 2
    assert seen == {(0, 3, 2), (1, 3, 3), (2, 3, 1)}


def test_callbacks_go_with_copies_but_are_not_saved(spark: SparkSession, tmp_path: Path) -> None:
    estimator = watched(print)
    assert estimator.copy({estimator.maxIter: 1}).getCallbacks() == [print]
    estimator.save(str(tmp_path / "estimator"))
    assert NeuralNetClassifier.load(str(tmp_path / "estimator")).getCallbacks() == []
    with pytest.raises(TypeError, match="expected functions"):
        estimator.setCallbacks(["print"])  # type: ignore[list-item]
