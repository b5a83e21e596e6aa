"""Make DataFrames from arrays for the tests of the estimators."""

from collections.abc import Callable
from typing import Any

import numpy as np
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession

Array = np.ndarray[Any, Any]


def dense(row: Array) -> Any:
    return Vectors.dense(row.tolist())


def sparse(row: Array) -> Any:
    entries = np.flatnonzero(row)
    return Vectors.sparse(len(row), entries.tolist(), row[entries].tolist())


def array(row: Array) -> Any:
    return row.tolist()


def table(
    spark: SparkSession,
    X: Array,
    y: Array,
    features: Callable[[Array], Any] = dense,
    **columns: Array,
) -> DataFrame:
    """Columns ``features``, ``label`` (a vector for ``y`` of two dimensions), and ``columns``."""
    labels = [dense(row) if y.ndim == 2 else row.item() for row in y]
    rows = [
        (features(x), label, *(value.item() for value in others))
        for x, label, *others in zip(X, labels, *columns.values(), strict=True)
    ]
    return spark.createDataFrame(rows, ["features", "label", *columns])


def accuracy(predicted: DataFrame) -> float:
    """Share of rows whose prediction is their label."""
    return predicted.where("prediction = label").count() / predicted.count()
