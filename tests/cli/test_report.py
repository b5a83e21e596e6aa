"""What is said about predictions: counts, shares and errors, worked out by hand."""

from typing import TYPE_CHECKING

import pandas as pd
from pyspark.ml.linalg import Vectors

from sparknn.cli.report import confusion_lines, counted, regression_lines
from sparknn.ml.evaluation import ClassificationSummary, RegressionSummary

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def table(counts: dict[tuple[float, float], int]) -> pd.DataFrame:
    """Counts by actual and predicted class."""
    rows = [(*pair, n) for pair, n in counts.items()]
    return pd.DataFrame(rows, columns=["actual", "predicted", "count"])


def test_confusion_counts_every_row(spark: "SparkSession") -> None:
    rows = [(0.0, 0.0), (0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (None, 1.0), (1.7, 1.0)]
    predicted = spark.createDataFrame(rows, "`the label` double, prediction double")
    counts = ClassificationSummary(predicted, "the label", "prediction").counts
    known = {(a, p): n for a, p, n in counts.dropna(subset="actual").iloc[:, :3].to_numpy()}
    assert known == {(0, 0): 2, (0, 1): 1, (1, 1): 1, (1.7, 1): 1}
    # A label that is no class number is no hit.
    lines = confusion_lines(counts, ["no", "yes"])
    assert lines[:2] == ["accuracy 60.00% (2 of 5 rows wrong)", "1 row without a label left out"]
    assert "1.7" in lines[6]


def test_the_matrix_can_be_read() -> None:
    counts = table({(0.0, 0.0): 98, (0.0, 1.0): 2, (1.0, 1.0): 1000})
    assert confusion_lines(counts, ["no", "yes"]) == [
        "accuracy 99.82% (2 of 1,100 rows wrong)",
        "",
        "actual \\ predicted     no   yes recall",
        "                no     98     2  98.0%",
        "               yes      .  1000 100.0%",
        "         precision 100.0% 99.8%       ",
    ]


def test_many_classes_are_summarised() -> None:
    counts = {(n / 1, n / 1): 10 for n in range(30)} | {(3.0, 4.0): 7, (4.0, 3.0): 2}
    lines = confusion_lines(table(counts))
    assert lines[2:] == ["most often mistaken:", "  3 for 4: 7", "  4 for 3: 2"]
    assert confusion_lines(table({})) == ["no rows with a label"]


def test_errors_of_one_target(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame(
        [(1.0, 1.0), (2.0, 4.0), (3.0, 3.0), (None, 1.0)], "label double, prediction double"
    )
    assert regression_lines(RegressionSummary(predicted, "label", "prediction")) == [
        "RMSE 1.155, mean absolute error 0.6667, R2 -1.0000 (3 rows)"
    ]


def test_errors_of_several_targets(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame(
        [([0, 10], Vectors.dense(1.0, 10.0)), ([2, 20], Vectors.dense(1.0, 20.0))],
        ["label", "prediction"],
    )
    assert regression_lines(RegressionSummary(predicted, "label", "prediction")) == [
        "target 0: RMSE 1, mean absolute error 1, R2 0.0000 (2 rows)",
        "target 1: RMSE 0, mean absolute error 0, R2 1.0000 (2 rows)",
    ]


def test_errors_of_several_quantiles_are_of_one_target(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame(
        [(1.0, Vectors.dense(1.0, 3.0)), (2.0, Vectors.dense(1.0, 4.0))], ["label", "prediction"]
    )
    summary = RegressionSummary(predicted, "label", "prediction", loss="quantile:0.1,0.9")
    assert regression_lines(summary) == [
        "quantile 0.1: RMSE 0.7071, mean absolute error 0.5, R2 -1.0000 (2 rows)",
        "quantile 0.9: RMSE 2, mean absolute error 2, R2 -15.0000 (2 rows)",
    ]


def test_a_constant_target_has_no_r2(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame([(1.0, 2.0)], "label double, prediction double")
    assert regression_lines(RegressionSummary(predicted, "label", "prediction"))[0].endswith(
        "R2 nan (1 row)"
    )
    assert regression_lines(RegressionSummary(predicted.limit(0), "label", "prediction")) == [
        "no rows with a label"
    ]
    assert [counted(n, "row") for n in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
