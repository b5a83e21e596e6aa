"""How good predictions are: one Spark job over them, and a page of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from sparknn.engine.sql import quote_column

# A wider matrix does not fit on a screen; its commonest mistakes are listed instead.
_MAX_CLASSES, _MAX_CONFUSIONS = 20, 10


def counted(number: int, what: str) -> str:
    """Return ``1 worker``, ``2 workers``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def count_pairs(predicted: DataFrame, label: str, prediction: str) -> pd.DataFrame:
    """Count rows by ``actual`` and ``predicted`` class, NaN where there is none."""
    columns = {"actual": label, "predicted": prediction}
    numbers = (F.col(quote_column(c)).cast("double").alias(name) for name, c in columns.items())
    return predicted.groupBy(*numbers).count().toPandas()


def confusion_lines(counts: pd.DataFrame, names: Sequence[str] = ()) -> list[str]:
    """Return accuracy, and the matrix or, for many classes, the commonest mistakes.

    ``names`` are the texts of the classes, by number. A label that is no class number is wrong.
    """
    known = counts.dropna()
    wrong = known[known["actual"] != known["predicted"]]
    n_rows, n_wrong = known["count"].sum(), wrong["count"].sum()
    if not n_rows:
        return ["no rows with a label"]
    lines = [f"accuracy {1 - n_wrong / n_rows:.2%} ({n_wrong:,} of {counted(n_rows, 'row')} wrong)"]
    if n_unlabelled := counts["count"].sum() - n_rows:
        lines.append(f"{counted(n_unlabelled, 'row')} without a label left out")
    classes = sorted({*known["actual"], *known["predicted"]})
    texts = {number: f"{number:g}" for number in classes} | dict(enumerate(names))
    if len(classes) > _MAX_CLASSES:
        order = ["count", "actual", "predicted"]
        most = wrong.sort_values(order, ascending=[False, True, True]).head(_MAX_CONFUSIONS)
        pairs = most[["actual", "predicted", "count"]].itertuples(index=False)
        commonest = [f"  {texts[a]} for {texts[p]}: {n:,}" for a, p, n in pairs]
        return [*lines, "", "most often mistaken:", *commonest]
    matrix = known.pivot(index="actual", columns="predicted", values="count")
    matrix = matrix.reindex(index=classes, columns=classes).fillna(0).astype(int)
    right, titles = np.diag(matrix), [texts[number] for number in classes]
    shown = matrix.astype(str).replace("0", ".")
    shown["recall"] = _shares(right, matrix.sum(axis=1))
    shown.loc["precision"] = [*_shares(right, matrix.sum(axis=0)), ""]
    shown.index = pd.Index([*titles, "precision"], name="actual \\ predicted")
    shown.columns = pd.Index([*titles, "recall"])
    return [*lines, "", *shown.reset_index().to_string(index=False).splitlines()]


def _shares(part: np.ndarray, whole: pd.Series) -> list[str]:
    return [f"{100 * a / b:.1f}%" if b else "-" for a, b in zip(part, whole, strict=True)]


def regression_lines(predicted: DataFrame, label: str, prediction: str) -> list[str]:
    """Return root mean squared error, mean absolute error and R2 of every target.

    R2 is NaN for a target that does not vary.
    """
    arrays = _as_array(predicted, label).alias("y"), _as_array(predicted, prediction).alias("guess")
    pairs = predicted.select(F.posexplode(F.arrays_zip(*arrays)).alias("target", "pair"))
    y, error = F.col("pair.y"), F.col("pair.guess") - F.col("pair.y")
    sums = (
        pairs.where(error.isNotNull() & ~F.isnan(error))
        .groupBy("target")
        .agg(F.count("*"), F.avg(error * error), F.avg(F.abs(error)), F.var_pop(y))
        .orderBy("target")
        .collect()
    )
    lines = []
    for target, n, square, absolute, variance in sums:
        name = f"target {target}: " if len(sums) > 1 else ""
        r2 = 1 - square / variance if variance else math.nan
        errors = f"RMSE {math.sqrt(square):.4g}, mean absolute error {absolute:.4g}, R2 {r2:.4f}"
        lines.append(f"{name}{errors} ({counted(n, 'row')})")
    return lines or ["no rows with a label"]


def _as_array(rows: DataFrame, name: str) -> Column:
    """Return a column of numbers, vectors or arrays as arrays of doubles."""
    kind, column = rows.schema[name].dataType, F.col(quote_column(name))
    if isinstance(kind, VectorUDT):
        return vector_to_array(column)
    return (column if isinstance(kind, ArrayType) else F.array(column)).cast("array<double>")
