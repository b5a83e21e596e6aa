"""How good predictions are: one Spark job over them, and a page of text."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from sparknn.engine.sql import quote_column

log = logging.getLogger("sparknn.cli")

# A wider matrix does not fit on a screen; its commonest mistakes are listed instead.
_MAX_CLASSES = 20
_MAX_CONFUSIONS = 10


def report(
    predicted: DataFrame, label: str, prediction: str, names: Sequence[str], *, classifies: bool
) -> tuple[list[str], int]:
    """Return the lines of a report, and the number of rows that it saw."""
    if classifies:
        found = confusion(predicted, label, prediction, names)
        return found.lines(), found.n_rows + found.n_unlabelled
    errors = regression_errors(predicted, label, prediction)
    return regression_lines(errors), max((e.n_rows for e in errors), default=0)


@dataclass(frozen=True)
class Confusion:
    """Counts of rows by their class and by the one predicted.

    Parameters
    ----------
    counts : dict of (float, float) to int
        By (actual, predicted). A label that is no class number is wrong, not rounded.
    names : sequence of str
        The texts of the classes, by number; empty if there are none.
    n_unlabelled : int
        Rows without a label or a prediction.
    """

    counts: Mapping[tuple[float, float], int]
    names: Sequence[str] = ()
    n_unlabelled: int = 0

    @property
    def n_rows(self) -> int:
        return sum(self.counts.values())

    @property
    def accuracy(self) -> float:
        """Share of right predictions; NaN without rows."""
        right = sum(n for (actual, predicted), n in self.counts.items() if actual == predicted)
        return right / self.n_rows if self.n_rows else math.nan

    def lines(self) -> list[str]:
        """Return accuracy, and the matrix or, for many classes, the commonest mistakes."""
        if not self.n_rows:
            return ["no rows with a label"]
        wrong = round((1 - self.accuracy) * self.n_rows)
        lines = [f"accuracy {self.accuracy:.2%} ({wrong:,} of {counted(self.n_rows, 'row')} wrong)"]
        if self.n_unlabelled:
            lines.append(f"{counted(self.n_unlabelled, 'row')} without a label left out")
        classes = sorted({number for pair in self.counts for number in pair})
        shown = self._matrix(classes) if len(classes) <= _MAX_CLASSES else self._commonest()
        return [*lines, "", *shown]

    def _name(self, number: float) -> str:
        known = number.is_integer() and 0 <= number < len(self.names)
        return self.names[int(number)] if known else f"{number:g}"

    def _matrix(self, classes: Sequence[float]) -> list[str]:
        """Actual classes down, predicted ones across, zeros as dots."""
        table = [["actual \\ predicted", *map(self._name, classes), "recall"]]
        for actual in classes:
            row = [self.counts.get((actual, predicted), 0) for predicted in classes]
            share = _share(self.counts.get((actual, actual), 0), sum(row))
            table.append([self._name(actual), *(str(n) if n else "." for n in row), share])
        columns = {p: sum(self.counts.get((a, p), 0) for a in classes) for p in classes}
        shares = [_share(self.counts.get((p, p), 0), n) for p, n in columns.items()]
        table.append(["precision", *shares, ""])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]

    def _commonest(self) -> list[str]:
        mistakes = Counter({pair: n for pair, n in self.counts.items() if pair[0] != pair[1]})
        return ["most often mistaken:"] + [
            f"  {self._name(actual)} for {self._name(predicted)}: {n:,}"
            for (actual, predicted), n in mistakes.most_common(_MAX_CONFUSIONS)
        ]


def counted(number: int, what: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def left_out(before: int, after: int, *, labelled: bool) -> None:
    """Log how many rows were left out, if any were."""
    if before > after:
        log.info(
            "%s of %s were left out: their values are null, NaN or infinite%s.",
            f"{before - after:,}",
            counted(before, "row"),
            ", or their label is unknown to the model" if labelled else "",
        )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"


def confusion(
    predicted: DataFrame, label: str, prediction: str, names: Sequence[str] = ()
) -> Confusion:
    """Count the rows of a transformed DataFrame by label and prediction."""
    pairs = predicted.groupBy(
        F.col(quote_column(label)).cast("double").alias("actual"),
        F.col(quote_column(prediction)).alias("predicted"),
    ).count()
    counts: Counter[tuple[float, float]] = Counter()
    unlabelled = 0
    for actual, guess, count in pairs.collect():
        if actual is None or guess is None or math.isnan(actual) or math.isnan(guess):
            unlabelled += count
        else:
            counts[actual, guess] += count
    return Confusion(counts, names, unlabelled)


@dataclass(frozen=True)
class Errors:
    """The errors of a regression, of one target.

    Parameters
    ----------
    n_rows : int
    rmse, mae, r2 : float
        Root mean squared and mean absolute error in the target's unit; the share of its variance
        that is explained (NaN for a target that does not vary).
    """

    n_rows: int
    rmse: float
    mae: float
    r2: float


def regression_errors(predicted: DataFrame, label: str, prediction: str) -> list[Errors]:
    """Measure every target of a transformed DataFrame, in their order."""
    pairs = predicted.select(
        F.posexplode(
            F.arrays_zip(
                _as_array(predicted, label).alias("y"),
                _as_array(predicted, prediction).alias("guess"),
            )
        ).alias("target", "pair")
    )
    y, error = F.col("pair.y"), F.col("pair.guess") - F.col("pair.y")
    sums = (
        pairs.where(error.isNotNull() & ~F.isnan(error))
        .groupBy("target")
        .agg(F.count("*"), F.avg(error * error), F.avg(F.abs(error)), F.var_pop(y))
        .orderBy("target")
    )
    return [
        Errors(n, math.sqrt(square), absolute, 1 - square / variance if variance else math.nan)
        for _, n, square, absolute, variance in sums.collect()
    ]


def _as_array(rows: DataFrame, name: str) -> Column:
    """Return a column of numbers, vectors or arrays as arrays of doubles."""
    type_ = rows.schema[name].dataType
    column = F.col(quote_column(name))
    if isinstance(type_, VectorUDT):
        return vector_to_array(column)
    return (column if isinstance(type_, ArrayType) else F.array(column)).cast("array<double>")


def regression_lines(errors: Sequence[Errors]) -> list[str]:
    """Return one line per target."""
    if not errors:
        return ["no rows with a label"]
    names = [f"target {number}: " if len(errors) > 1 else "" for number in range(len(errors))]
    return [
        f"{name}RMSE {e.rmse:.4g}, mean absolute error {e.mae:.4g}, R2 {e.r2:.4f} "
        f"({counted(e.n_rows, 'row')})"
        for name, e in zip(names, errors, strict=True)
    ]
