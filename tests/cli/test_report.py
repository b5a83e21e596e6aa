"""What is said about predictions: counts, shares and errors, worked out by hand."""

import math
from typing import TYPE_CHECKING

import pytest
from pyspark.ml.linalg import Vectors

from sparknn.cli.report import Confusion, confusion, counted, regression_errors, regression_lines

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_confusion_counts_every_row(spark: "SparkSession") -> None:
    rows = [(0.0, 0.0), (0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (None, 1.0), (1.7, 1.0)]
    predicted = spark.createDataFrame(rows, "`the label` double, prediction double")
    found = confusion(predicted, "the label", "prediction", ["no", "yes"])
    assert found == Confusion(
        {(0, 0): 2, (0, 1): 1, (1, 1): 1, (1.7, 1): 1}, ["no", "yes"], n_unlabelled=1
    )
    assert found.n_rows == 5
    # A label that is no class number is no hit.
    assert found.accuracy == pytest.approx(0.6)
    assert "1.7" in found.lines()[6]


def test_the_matrix_can_be_read() -> None:
    found = Confusion({(0.0, 0.0): 98, (0.0, 1.0): 2, (1.0, 1.0): 1000}, ["no", "yes"])
    assert found.lines() == [
        "accuracy 99.82% (2 of 1,100 rows wrong)",
        "",
        "actual \\ predicted      no    yes  recall",
        "                no      98      2   98.0%",
        "               yes       .   1000  100.0%",
        "         precision  100.0%  99.8%",
    ]


def test_many_classes_are_summarised() -> None:
    counts = {(n / 1, n / 1): 10 for n in range(30)} | {(3.0, 4.0): 7, (4.0, 3.0): 2}
    lines = Confusion(counts).lines()
    assert lines[2:] == ["most often mistaken:", "  3 for 4: 7", "  4 for 3: 2"]


def test_no_rows_have_no_accuracy() -> None:
    assert Confusion({}).lines() == ["no rows with a label"]
    assert math.isnan(Confusion({}).accuracy)


def test_unlabelled_rows_are_mentioned() -> None:
    assert (
        Confusion({(0.0, 0.0): 1}, n_unlabelled=3).lines()[1] == "3 rows without a label left out"
    )


def test_errors_of_one_target(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame(
        [(1.0, 1.0), (2.0, 4.0), (3.0, 3.0), (None, 1.0)], "label double, prediction double"
    )
    (found,) = regression_errors(predicted, "label", "prediction")
    assert found.n_rows == 3
    assert found.rmse == pytest.approx(math.sqrt(4 / 3))
    assert found.mae == pytest.approx(2 / 3)
    assert found.r2 == pytest.approx(1 - (4 / 3) / (2 / 3))
    assert regression_lines([found]) == [
        "RMSE 1.155, mean absolute error 0.6667, R2 -1.0000 (3 rows)"
    ]


def test_errors_of_several_targets(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame(
        [([0, 10], Vectors.dense(1.0, 10.0)), ([2, 20], Vectors.dense(1.0, 20.0))],
        ["label", "prediction"],
    )
    first, second = regression_errors(predicted, "label", "prediction")
    assert (first.rmse, first.r2) == (1.0, 0.0)
    assert (second.rmse, second.r2) == (0.0, 1.0)
    assert regression_lines([first, second])[1].startswith("target 1: RMSE 0,")


def test_a_constant_target_has_no_r2(spark: "SparkSession") -> None:
    predicted = spark.createDataFrame([(1.0, 2.0)], "label double, prediction double")
    (found,) = regression_errors(predicted, "label", "prediction")
    assert math.isnan(found.r2)
    assert regression_lines([]) == ["no rows with a label"]


def test_one_is_no_plural() -> None:
    assert [counted(n, "row") for n in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
    lines = Confusion({(0.0, 0.0): 1}, n_unlabelled=1).lines()
    assert lines[:2] == ["accuracy 100.00% (0 of 1 row wrong)", "1 row without a label left out"]
