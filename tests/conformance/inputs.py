"""Check columns of every type, and tables of unusual sizes."""

import numpy as np
from pyspark.sql import functions as F
from tables import array, dense, sparse

from conformance.subject import Subject, answers, same_model


def check_kinds_of_features(subject: Subject) -> None:
    """Fits and models treat equal numbers equally, whatever the type of their column."""
    frame = subject.table(array).coalesce(1)
    column, label = subject.estimator.getFeaturesCol(), subject.estimator.getLabelCol()
    vectors = subject.table(_mixed).coalesce(1)
    expected = subject.estimator.fit(subject.table(dense).coalesce(1))
    floats = frame.withColumn(column, F.col(column).cast("array<float>"))
    assert same_model(subject.estimator.fit(vectors), expected)
    assert same_model(subject.estimator.fit(floats), expected)
    if subject.classifies:
        whole = frame.withColumn(column, F.col(column).cast("array<int>"))
        labelled = whole.withColumn(label, F.col(label).cast("int"))
        assert same_model(subject.estimator.fit(labelled), expected)
    for kind in (vectors, subject.table(sparse), frame, floats):
        assert np.array_equal(answers(subject.model.transform(kind)), subject.answers)


def _mixed(row: np.ndarray) -> object:
    return sparse(row) if row[0] > 0 else dense(row)


def check_more_workers_than_rows(subject: Subject) -> None:
    """Three rows, some partitions empty; a model of finite numbers comes out."""
    first = np.unique(subject.y, return_index=True)[1][:3].tolist()
    frame = subject.table().where(F.col("id").isin(first)).repartition(4, "id")
    model = subject.estimator.fit(frame, subject.params(numWorkers=5))
    assert np.isfinite(model.theta).all()
    assert model.summary.n_rows == 3
    assert model.transform(frame).count() == 3


def check_one_feature_and_a_linear_model(subject: Subject) -> None:
    column = subject.estimator.getFeaturesCol()
    frame = subject.table(array)
    narrow = frame.withColumn(column, F.slice(column, 1, 1))
    model = subject.estimator.fit(narrow, subject.params(hiddenLayers=[], maxIter=1))
    assert model.numFeatures == 1
    assert len(model.layers) == 2
    assert model.transform(narrow.limit(5)).count() == 5
    empty = narrow.limit(0)
    assert model.transform(empty).collect() == []
