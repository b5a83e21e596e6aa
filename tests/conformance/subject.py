"""Hold an estimator under test, its data, and the fits that several checks share."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml.evaluation import (
    Evaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from tables import dense, sparse, table

Array = np.ndarray[Any, Any]


class Subject:
    """What the checks are about.

    Parameters
    ----------
    estimator : Estimator
    data : DataFrame
    folder : Path
        See ``check_spark_estimator``.
    """

    def __init__(self, estimator: Any, data: DataFrame, folder: Path) -> None:
        self.estimator = estimator
        self.folder = folder
        self.spark: SparkSession = data.sparkSession
        rows = data.select(estimator.getFeaturesCol(), estimator.getLabelCol()).collect()
        self.X: Array = np.array([row[0].toArray() for row in rows])
        self.y: Array = np.array([row[1] for row in rows])

    @property
    def name(self) -> str:
        """The estimator's class."""
        return type(self.estimator).__name__

    @property
    def classifies(self) -> bool:
        """Whether it predicts classes."""
        return bool(self.estimator.hasParam("rawPredictionCol"))

    def table(
        self,
        features: Callable[[Array], Any] | None = None,
        n: int | None = None,
        **columns: Array,
    ) -> DataFrame:
        """The first ``n`` rows with an ``id``, and whatever other columns."""
        X, y = self.X[:n], self.y[:n]
        frame = table(self.spark, X, y, features or self.kind, id=np.arange(len(X)), **columns)
        return self.named(frame)

    kind: Callable[[Array], Any] = staticmethod(dense)

    def named(self, frame: DataFrame) -> DataFrame:
        """A frame's features and label by the names that the estimator asks for."""
        names = {"features": self.estimator.getFeaturesCol(), "label": self.estimator.getLabelCol()}
        return frame.withColumnsRenamed(names)

    @cached_property
    def path(self) -> str:
        """The rows as parquet, in two files: the same partitions in every session of two slots."""
        path = str(self.folder / "rows.parquet")
        self.table().coalesce(2).write.parquet(path)
        return path

    @cached_property
    def data(self) -> DataFrame:
        """All rows: ``id``, features and label."""
        return self.spark.read.parquet(self.path)

    @cached_property
    def model(self) -> Any:
        """The estimator, as it came, fitted to ``data``."""
        return self.estimator.fit(self.data)

    @cached_property
    def answers(self) -> Array:
        """Predictions of ``model`` for ``data``."""
        return answers(self.model.transform(self.data))

    def other(self, **params: Any) -> Any:
        """The estimator with other params."""
        return self.estimator.copy(self.params(**params))

    def params(self, **params: Any) -> dict[Any, Any]:
        """A parameter map of the estimator, by the params' names."""
        return {self.estimator.getParam(name): value for name, value in params.items()}

    def full_batch(self, **params: Any) -> Any:
        """One worker, one plain step per round: nothing depends on the order of rows.

        Nor on how many there are, as knots of encoded numbers do, which do not know weights.
        """
        plain = {"numWorkers": 1, "batchSize": 100_000, "solver": "sgd", "shuffle": False}
        return self.other(**plain, numericEncoding="plain", maxIter=3, stepSize=0.1, **params)

    def evaluator(self) -> Evaluator:
        """Larger is better."""
        columns = {
            "labelCol": self.estimator.getLabelCol(),
            "predictionCol": self.estimator.getPredictionCol(),
        }
        if self.classifies:
            return MulticlassClassificationEvaluator(metricName="accuracy", **columns)
        return RegressionEvaluator(metricName="r2", **columns)


class SparseSubject(Subject):
    """Features are sparse vectors."""

    kind = staticmethod(sparse)


class TableSubject(Subject):
    """Features are ``inputCols``: ``TableSubject.COLUMNS``, with missing values."""

    COLUMNS = ("kind", "flag", "size", "features")

    def table(
        self,
        features: Callable[[Array], Any] | None = None,
        n: int | None = None,
        **columns: Array,
    ) -> DataFrame:
        frame = super().table(features, n, **columns)
        x = vector_to_array("features")
        text = F.when(x[0] > 4, "high").when(x[0] < -4, "low")
        return frame.withColumns(
            {
                "kind": text,
                "flag": F.when(x[1] % 3 != 0, x[1] > 0),
                "size": F.when(x[2] % 5 != 0, x[2]),
            }
        ).withMetadata("features", {"ml_attr": {"num_attrs": self.X.shape[1]}})


def same_model(one: Any, other: Any) -> bool:
    """Whether two models hold the same bytes and the same history."""
    return (
        one.theta.tobytes() == other.theta.tobytes()
        and one.layers == other.layers
        and one.summary.objectiveHistory == other.summary.objectiveHistory
    )


def answers(predicted: DataFrame) -> Array:
    """Every column that a model added, as numbers, shape (n, columns), in the order of ids."""
    given = [name for name in predicted.columns if name.lower().endswith("prediction")]
    given += [name for name in predicted.columns if name == "probability"]
    rows = sorted(predicted.select("id", *given).collect())
    return np.array([np.concatenate([_flat(value) for value in row[1:]]) for row in rows])


def _flat(value: Any) -> Array:
    return np.atleast_1d(value.toArray() if isinstance(value, Vector) else float(value))


def by_name(params: Mapping[Any, Any]) -> dict[str, Any]:
    """A parameter map by the params' names."""
    return {param.name: value for param, value in params.items()}
