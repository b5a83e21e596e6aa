"""How good predictions are: one Spark job over them, and a page of text."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from sparknn.engine.sql import quote_column

log = logging.getLogger("sparknn.cli")

# A wider matrix does not fit on a screen; its commonest mistakes are listed instead.
_MAX_CLASSES, _MAX_CONFUSIONS = 20, 10


def counted(number: int, what: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def log_left_out(before: int, after: int, *, labelled: bool) -> None:
    """Log how many rows were left out, if any were."""
    if before > after:
        label = ", or their label is unknown to the model" if labelled else ""
        rows = f"{before - after:,} of {counted(before, 'row')}"
        log.info("%s were left out: their values are null, NaN or infinite%s.", rows, label)


def count_pairs(
    predicted: DataFrame, label: str, prediction: str
) -> tuple[dict[tuple[float, float], int], int]:
    """Count rows by (label, prediction), and those without a label or a prediction."""
    pairs = predicted.groupBy(
        F.col(quote_column(label)).cast("double").alias("actual"),
        F.col(quote_column(prediction)).alias("predicted"),
    ).count()
    known, unknown = {}, 0
    for actual, guess, n in pairs.collect():
        if None in (actual, guess) or math.isnan(actual) or math.isnan(guess):
            unknown += n
        else:
            known[actual, guess] = n
    return known, unknown


def confusion_lines(
    counts: Mapping[tuple[float, float], int], names: Sequence[str] = (), n_unlabelled: int = 0
) -> list[str]:
    """Return accuracy, and the matrix or, for many classes, the commonest mistakes.

    Parameters
    ----------
    counts : dict of (float, float) to int
        By (label, prediction). A label that is no class number is wrong, not rounded.
    names : sequence of str
        The texts of the classes, by number; empty if there are none.
    """
    if not counts:
        return ["no rows with a label"]

    def name(number: float) -> str:
        known = number.is_integer() and 0 <= number < len(names)
        return names[int(number)] if known else f"{number:g}"

    n_rows, n_right = sum(counts.values()), sum(n for (a, p), n in counts.items() if a == p)
    wrong = f"({n_rows - n_right:,} of {counted(n_rows, 'row')} wrong)"
    lines = [f"accuracy {n_right / n_rows:.2%} {wrong}"]
    if n_unlabelled:
        lines.append(f"{counted(n_unlabelled, 'row')} without a label left out")
    classes = sorted({number for pair in counts for number in pair})
    if len(classes) > _MAX_CLASSES:
        mistakes = sorted((-n, a, p) for (a, p), n in counts.items() if a != p)[:_MAX_CONFUSIONS]
        commonest = [f"  {name(a)} for {name(p)}: {-n:,}" for n, a, p in mistakes]
        return [*lines, "", "most often mistaken:", *commonest]
    matrix = pd.DataFrame([[counts.get((a, p), 0) for p in classes] for a in classes])
    right = pd.Series([matrix.iloc[i, i] for i in range(len(classes))])
    shown = matrix.astype(str).replace("0", ".")
    shown["recall"] = _shares(right, matrix.sum(axis=1))
    shown.loc["precision"] = [*_shares(right, matrix.sum(axis=0)), ""]
    shown.index = pd.Index([*map(name, classes), "precision"], name="actual \\ predicted")
    shown.columns = pd.Index([*map(name, classes), "recall"])
    return [*lines, "", *shown.reset_index().to_string(index=False).splitlines()]


def _shares(part: pd.Series, whole: pd.Series) -> list[str]:
    return [f"{100 * a / b:.1f}%" if b else "-" for a, b in zip(part, whole, strict=True)]


def regression_errors(
    predicted: DataFrame, label: str, prediction: str
) -> list[tuple[int, float, float, float]]:
    """Measure every target: rows, root mean squared and mean absolute error, and R2.

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
    )
    return [
        (n, math.sqrt(square), absolute, 1 - square / variance if variance else math.nan)
        for _, n, square, absolute, variance in sums.collect()
    ]


def _as_array(rows: DataFrame, name: str) -> Column:
    """Return a column of numbers, vectors or arrays as arrays of doubles."""
    kind, column = rows.schema[name].dataType, F.col(quote_column(name))
    if isinstance(kind, VectorUDT):
        return vector_to_array(column)
    return (column if isinstance(kind, ArrayType) else F.array(column)).cast("array<double>")


def regression_lines(errors: Sequence[tuple[int, float, float, float]]) -> list[str]:
    """Return one line per target."""
    names = [f"target {number}: " if len(errors) > 1 else "" for number in range(len(errors))]
    return [
        f"{name}RMSE {rmse:.4g}, mean absolute error {mae:.4g}, R2 {r2:.4f} ({counted(n, 'row')})"
        for name, (n, rmse, mae, r2) in zip(names, errors, strict=True)
    ] or ["no rows with a label"]
