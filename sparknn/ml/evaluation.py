"""How good a model's predictions are: what ``model.evaluate(df)`` returns.

One Spark job sums over the rows; every measure comes from the sums. Names are those of the
summaries of Spark's models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from sparknn.core.nn.losses import quantiles_of
from sparknn.core.types import Float64Array
from sparknn.engine.sql import quote_column

# Probabilities below it count as it: a certain, wrong prediction would make any mean infinite.
_LEAST_PROBABILITY = 1e-15


@dataclass(frozen=True)
class ClassificationSummary:
    """Measures of a classifier; rows without a label or a prediction do not count.

    Parameters
    ----------
    predictions : DataFrame
        The evaluated rows, with the model's columns.
    label, prediction, weight, probability : str
        Their columns; empty for no weight and no probabilities.
    """

    predictions: DataFrame
    label: str
    prediction: str
    weight: str = ""
    probability: str = ""

    @cached_property
    def counts(self) -> pd.DataFrame:
        """Rows, weight and summed log loss by ``actual`` and ``predicted`` class; NaN for none."""
        label = F.col(quote_column(self.label)).cast("double")
        weight = _weight(self.weight)
        loss = F.lit(None).cast("double")
        if self.probability:
            shares = _vector(F.col(quote_column(self.probability)))
            known = (label >= 0) & (label < F.size(shares)) & (label == F.floor(label))
            share = F.when(known, F.get(shares, label.cast("int")))
            loss = -F.log(F.greatest(share, F.lit(_LEAST_PROBABILITY)))
        groups = (
            label.alias("actual"),
            F.col(quote_column(self.prediction)).cast("double").alias("predicted"),
        )
        sums = self.predictions.groupBy(*groups).agg(
            F.count(F.lit(1)).alias("count"),
            F.sum(weight).alias("weight"),
            F.sum(loss * weight).alias("loss"),
        )
        return sums.toPandas()

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Weight of the rows by actual class (index) and predicted class (columns)."""
        return confusion_matrix(self.counts.dropna(subset=["actual", "predicted"]), "weight")

    @property
    def labels(self) -> list[float]:
        """Classes, actual or predicted, in order; the order of the measures by label."""
        return list(self.confusion.index)

    @property
    def accuracy(self) -> float:
        """Share of the weight whose class is predicted."""
        matrix = self.confusion.to_numpy()
        return float(_ratio(np.trace(matrix), matrix.sum()))

    @property
    def precisionByLabel(self) -> list[float]:
        """Share of each predicted class that is right; 0 for a class never predicted."""
        matrix = self.confusion.to_numpy()
        return list(_ratio(np.diag(matrix), matrix.sum(axis=0)))

    @property
    def recallByLabel(self) -> list[float]:
        """Share of each actual class that is found; 0 for a class without rows."""
        matrix = self.confusion.to_numpy()
        return list(_ratio(np.diag(matrix), matrix.sum(axis=1)))

    @property
    def fMeasureByLabel(self) -> list[float]:
        """Harmonic mean of precision and recall of each class."""
        precision, recall = np.array([self.precisionByLabel, self.recallByLabel])
        return list(_ratio(2 * precision * recall, precision + recall))

    @property
    def weightedPrecision(self) -> float:
        """Mean precision of the classes, by their weight."""
        return self._weighted(self.precisionByLabel)

    @property
    def weightedRecall(self) -> float:
        """Mean recall of the classes, by their weight: the accuracy."""
        return self._weighted(self.recallByLabel)

    @property
    def weightedFMeasure(self) -> float:
        """Mean F measure of the classes, by their weight."""
        return self._weighted(self.fMeasureByLabel)

    @property
    def logLoss(self) -> float:
        """Mean negative log probability of the actual class; NaN without probabilities."""
        known = self.counts.dropna(subset=["actual", "predicted", "loss"])
        return float(_ratio(known["loss"].sum(), known["weight"].sum(), np.nan))

    def _weighted(self, by_label: list[float]) -> float:
        weight = self.confusion.to_numpy().sum(axis=1)
        return float(_ratio(np.dot(weight, by_label), weight.sum()))


@dataclass(frozen=True)
class RegressionSummary:
    """Measures of a regression; rows without a label or a prediction do not count.

    Of several targets, ``targets`` has each one's measures, and the others are their means.

    Parameters
    ----------
    predictions : DataFrame
        The evaluated rows, with the model's columns.
    label, prediction, weight : str
        Their columns; empty for no weight.
    loss : str
        Of the model.
    """

    predictions: DataFrame
    label: str
    prediction: str
    weight: str = ""
    loss: str = ""

    @cached_property
    def targets(self) -> pd.DataFrame:
        """One row per target: count, mse, mae, rmse, r2 (NaN for a target that does not vary).

        And ``deviance`` for loss='poisson'. For loss='quantile', one row per quantile, with
        ``pinball``.
        """
        label, prediction = (_as_array(self.predictions, c) for c in (self.label, self.prediction))
        quantiles = quantiles_of(self.loss)
        if quantiles:
            label = F.array_repeat(F.element_at(label, 1), len(quantiles))
        weight = _weight(self.weight)
        zipped = F.arrays_zip(label.alias("y"), prediction.alias("guess"))
        pairs = self.predictions.select(
            weight.alias("weight"), F.posexplode(zipped).alias("target", "pair")
        )
        w, y = F.col("weight"), F.col("pair.y")
        guess = F.col("pair.guess")
        error, own = guess - y, {}
        # Null if all weights are 0.
        weight_sum = F.nullif(F.sum(w), F.lit(0.0))
        if quantiles:
            tau = F.element_at(F.array(*map(F.lit, quantiles)), F.col("target") + 1)
            own["pinball"] = F.greatest(-tau * error, (1 - tau) * error)
        if self.loss == "poisson":
            term = F.when(y > 0, y * F.log(y / guess)).otherwise(0)
            own["deviance"] = 2 * (term - y + guess)
        variance = F.var_pop(y)
        if self.weight:
            # Spark's own has no weights. Less a number near the mean, squares lose no digits.
            moved = y - F.element_at(F.array(*map(F.lit, self._means(label))), F.col("target") + 1)
            variance = F.sum(w * moved * moved) / weight_sum
            variance -= (F.sum(w * moved) / weight_sum) ** 2
        sums = (
            pairs.where(error.isNotNull() & ~F.isnan(error))
            .groupBy("target")
            .agg(
                F.count(F.lit(1)).alias("count"),
                (F.sum(w * error * error) / weight_sum).alias("mse"),
                (F.sum(w * F.abs(error)) / weight_sum).alias("mae"),
                *((F.sum(w * each) / weight_sum).alias(name) for name, each in own.items()),
                variance.alias("variance"),
            )
        )
        table = pd.DataFrame(sums.orderBy("target").toPandas()).set_index("target")
        table["rmse"] = np.sqrt(table["mse"])
        spread = table.pop("variance")
        table["r2"] = 1 - table["mse"] / spread.where(spread > 0)
        if quantiles:
            table.index = pd.Index([quantiles[number] for number in table.index], name="quantile")
        return table

    def _means(self, label: Column) -> list[float]:
        """Return the mean of each target, without weights."""
        labels = self.predictions.select(F.posexplode(label).alias("target", "y"))
        means = labels.groupBy("target").agg(F.avg("y").alias("mean")).orderBy("target")
        return [row["mean"] or 0.0 for row in means.collect()] or [0.0]

    @property
    def meanPinballLoss(self) -> float:
        """Mean over rows and quantiles; NaN if the loss is another."""
        return float(self.targets["pinball"].mean()) if quantiles_of(self.loss) else np.nan

    @property
    def meanPoissonDeviance(self) -> float:
        """Mean over rows and targets; NaN if the loss is another."""
        return float(self.targets["deviance"].mean()) if self.loss == "poisson" else np.nan

    @property
    def meanSquaredError(self) -> float:
        """Mean squared error."""
        return float(self.targets["mse"].mean())

    @property
    def rootMeanSquaredError(self) -> float:
        """Root of the mean squared error."""
        return float(np.sqrt(self.meanSquaredError))

    @property
    def meanAbsoluteError(self) -> float:
        """Mean absolute error."""
        return float(self.targets["mae"].mean())

    @property
    def r2(self) -> float:
        """Share of the variance that is predicted; NaN for a target that does not vary."""
        return float(self.targets["r2"].mean(skipna=False))


def confusion_matrix(counts: pd.DataFrame, values: str) -> pd.DataFrame:
    """Return ``values`` of ``counts`` by actual class (index) and predicted class (columns)."""
    matrix = counts.pivot(index="actual", columns="predicted", values=values)
    classes = sorted({*counts["actual"], *counts["predicted"]})
    return matrix.reindex(index=classes, columns=classes).fillna(0.0)


def _weight(name: str) -> Column:
    return F.col(quote_column(name)).cast("double") if name else F.lit(1.0)


def _ratio(part: object, whole: object, otherwise: float = 0.0) -> Float64Array:
    """Divide, with ``otherwise`` where ``whole`` is 0."""
    a, b = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(a, b, out=np.full(b.shape, otherwise), where=b != 0)


def _as_array(rows: DataFrame, name: str) -> Column:
    """Return a column of numbers, vectors or arrays as arrays of doubles."""
    kind, column = rows.schema[name].dataType, F.col(quote_column(name))
    if isinstance(kind, VectorUDT):
        return _vector(column)
    return (column if isinstance(kind, ArrayType) else F.array(column)).cast("array<double>")


def _vector(column: Column) -> Column:
    """Return vectors as arrays; null stays null, which ``vector_to_array`` refuses."""
    return F.when(column.isNotNull(), vector_to_array(column))
