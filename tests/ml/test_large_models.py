"""A model above 1 MB, which pyspark would broadcast anew for each transform."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from models import classifier
from models import rows as random_rows
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession

from sparknn.ml.model import NetworkModel

D, K = 6, 3
LAYERS = (D, 500, 600, K)
X = random_rows(20, D)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    values = [(i, Vectors.dense(x), Vectors.dense(-x)) for i, x in enumerate(X)]
    return spark.createDataFrame(values, ["id", "features", "opposite"])


@pytest.fixture
def files(spark: SparkSession) -> Callable[[], int]:
    """How many files there are in pyspark's temporary folder that were not there before."""
    folder = Path(spark.sparkContext._temp_dir)
    before = {path for path in folder.rglob("*") if path.is_file()}
    return lambda: len({path for path in folder.rglob("*") if path.is_file()} - before)


def predicted(model: NetworkModel, frame: DataFrame) -> list[float]:
    found = model.transform(frame).select("id", "prediction").collect()
    return [row.prediction for row in sorted(found)]


def test_transforms_and_copies_leave_one_file(frame: DataFrame, files: Callable[[], int]) -> None:
    model = classifier(*LAYERS)
    assert model.theta.nbytes > 1 << 20
    for handle_invalid in ["error", "skip", "keep"] * 3:
        model.transform(frame)
        model.copy({model.handleInvalid: handle_invalid}).transform(frame)
    assert predicted(model, frame) == model.toLocal().predict(X).tolist()
    assert files() == 1


def test_a_changed_model_predicts_as_changed(frame: DataFrame, files: Callable[[], int]) -> None:
    model = classifier(*LAYERS)
    plain = predicted(model, frame)
    model.setThresholds([0.9, 0.0, 0.9])
    assert predicted(model, frame) == [1.0] * len(X) != plain
    model.clear(model.thresholds)
    assert predicted(model, frame) == plain
    model.setFeaturesCol("opposite")
    assert predicted(model, frame) == model.toLocal().predict(-X).tolist() != plain
    assert files() == 1


def test_a_pickled_model_predicts(frame: DataFrame) -> None:
    model = classifier(*LAYERS)
    plain = predicted(model, frame)
    assert predicted(pickle.loads(pickle.dumps(model)), frame) == plain
