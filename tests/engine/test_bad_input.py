"""Rows that cannot be trained on: one error, before any training, that names all of it."""

from typing import Any

import numpy as np
import pytest
from engines import frame, leftovers, shards, spec
from pyspark.ml.linalg import DenseVector, SparseVector, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, BooleanType, DataType, DoubleType

from sparknn.engine import open_engine
from sparknn.engine.interface import DataError

NAN, INF = float("nan"), float("inf")
NUMBERS = ArrayType(DoubleType())
GOOD = ([1.0, 2.0], 0.0, 1.0, False)
KINDS: dict[str, DataType] = {
    "my features": NUMBERS,
    "the.label": DoubleType(),
    "w": DoubleType(),
    "held_out": BooleanType(),
}
COLUMNS = {
    "features": "my features",
    "label": "the.label",
    "weight": "w",
    "validation_indicator": "held_out",
}


def table(spark: SparkSession, *bad: tuple[Any, ...], n_good: int = 3) -> DataFrame:
    """Good rows and bad ones in two partitions."""
    return frame(spark, [[GOOD] * n_good, [GOOD, *bad] if n_good else list(bad)], **KINDS)


def error_of(df: DataFrame, **changes: Any) -> str:
    with pytest.raises(DataError) as caught, open_engine(df, spec(**changes)):
        pass
    assert leftovers(df.sparkSession) == []
    return str(caught.value)


CASES: list[tuple[str, list[tuple[Any, ...]], str, bool]] = [
    ("null features", [(None, 0.0, 1.0, False)], "'my features' is null in 1 of 5 rows", True),
    (
        "NaN, infinite and null inside",
        [
            ([NAN, 1.0], 0.0, 1.0, False),
            ([1.0, -INF], 0.0, 1.0, False),
            ([None, 1.0], 1.0, 1.0, False),
        ],
        "'my features' is NaN, infinite, beyond float32 or null inside in 3 of 7 rows",
        True,
    ),
    (
        "beyond float32",
        [([1e39, 1.0], 0.0, 1.0, False)],
        "'my features' is NaN, infinite, beyond float32 or null inside in 1 of 5 rows",
        True,
    ),
    ("null label", [([1.0, 2.0], None, 1.0, False)], "'the.label' is null in 1 of 5 rows", True),
    (
        "NaN label",
        [([1.0, 2.0], NAN, 1.0, False), ([1.0, 2.0], INF, 1.0, False)],
        "'the.label' is NaN or infinite in 2 of 6 rows",
        True,
    ),
    ("negative label", [([1.0, 2.0], -1.0, 1.0, False)], "'the.label' is negative in 1 of", False),
    (
        "fractional label",
        [([1.0, 2.0], 0.5, 1.0, False)] * 2,
        "'the.label' is not a whole number in 2 of 6 rows",
        False,
    ),
    ("null weight", [([1.0, 2.0], 0.0, None, False)], "'w' is null in 1 of 5 rows", True),
    (
        "NaN weight",
        [([1.0, 2.0], 0.0, NAN, False)],
        "'w' is NaN, infinite or beyond 1e+290 in 1 of 5",
        True,
    ),
    ("negative weight", [([1.0, 2.0], 0.0, -0.1, False)], "'w' is negative in 1 of 5", False),
    ("null indicator", [([1.0, 2.0], 0.0, 1.0, None)], "'held_out' is null in 1 of 5", True),
]


@pytest.mark.parametrize(
    ("bad", "message", "skippable"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_is_named_with_its_column_and_count(
    spark: SparkSession, bad: list[tuple[Any, ...]], message: str, skippable: bool
) -> None:
    df = table(spark, *bad)
    said = error_of(df, **COLUMNS)
    assert message in said
    assert said.count("column '") == 1
    assert ("handleInvalid='skip'" in said) == skippable
    assert ("StringIndexer" in said) == ("label' is negative" in said or "whole number" in said)


def test_what_is_skipped_and_what_is_an_error_all_the_same(spark: SparkSession) -> None:
    skippable = [row for _, rows, _, skippable in CASES if skippable for row in rows]
    df = table(spark, *skippable)
    with open_engine(df, spec(skip_invalid=True, **COLUMNS)) as engine:
        assert (engine.info.n_rows, engine.info.n_skipped) == (4, len(skippable))
        for rows, _ in shards(engine):
            np.testing.assert_array_equal(rows.X, np.tile([1.0, 2.0], (rows.n_rows, 1)))
    wrong = [(rows, message) for _, rows, message, skippable in CASES if not skippable]
    df = table(spark, *skippable, *[row for rows, _ in wrong for row in rows])
    said = error_of(df, skip_invalid=True, **COLUMNS)
    for _, message in wrong:
        assert message.partition(" in ")[0] in said
    assert "null" not in said
    assert "NaN" not in said


def test_all_mistakes_are_named_at_once(spark: SparkSession) -> None:
    df = table(
        spark,
        (None, None, -1.0, None),
        ([1.0, NAN], -2.0, None, False),
        ([1.0], 0.5, 1.0, False),
        ([1.0, 2.0, 3.0], 0.0, NAN, False),
    )
    said = error_of(df, **COLUMNS)
    for part in (
        "'my features' is null in 1 of 8",
        "'my features' has rows of different sizes: 2 (5 rows)",
        "'my features' is NaN, infinite, beyond float32 or null inside in 1 of 8",
        "'the.label' is null in 1 of 8",
        "'the.label' is negative in 1 of 8",
        "'the.label' is not a whole number in 1 of 8",
        "'w' is negative in 1 of 8",
        "'w' is null in 1 of 8",
        "'w' is NaN, infinite or beyond 1e+290 in 1 of 8",
        "'held_out' is null in 1 of 8",
    ):
        assert part in said, said


@pytest.mark.parametrize("together", [True, False], ids=["one partition", "a partition each"])
@pytest.mark.parametrize("kind", ["arrays", "dense", "sparse"])
def test_ragged_features(spark: SparkSession, kind: str, together: bool) -> None:
    make: dict[str, tuple[DataType, Any]] = {
        "arrays": (NUMBERS, lambda n: [1.0] * n),
        "dense": (VectorUDT(), lambda n: DenseVector([1.0] * n)),
        "sparse": (VectorUDT(), lambda n: SparseVector(n, {0: 1.0})),
    }
    type_, vector = make[kind]
    rows = [(vector(n), 0.0) for n in (3, 3, 2)]
    parts = [rows] if together else [rows[:2], rows[2:]]
    said = error_of(frame(spark, parts, features=type_, label=DoubleType()))
    assert "'features' has rows of different sizes: 3 (2 rows), 2 (1 rows)" in said


def test_sparse_vectors_with_bad_entries(spark: SparkSession) -> None:
    rows = [
        (SparseVector(40, {1: 1.0}), 0.0),
        (SparseVector(40, {1: NAN, 3: 2.0}), 1.0),
        (None, 1.0),
        (DenseVector([INF] + [0.0] * 39), 1.0),
        (SparseVector(40, {}), 1.0),
    ]
    df = frame(spark, [rows], features=VectorUDT(), label=DoubleType())
    said = error_of(df)
    assert "'features' is null in 1 of 5 rows" in said
    assert "'features' is NaN, infinite, beyond float32 or null inside in 2 of 5 rows" in said
    with open_engine(df, spec(skip_invalid=True)) as engine:
        assert (engine.info.n_rows, engine.info.n_skipped) == (2, 3)
        X = np.concatenate([rows.X for rows, _ in shards(engine)])
        assert np.argwhere(X)[:, 1].tolist() == [1]
        assert X.sum() == 1


TARGETS: dict[str, tuple[DataType, list[Any], str]] = {
    "ragged arrays": (
        NUMBERS,
        [[1.0, 2.0], [1.0], [3.0, 4.0]],
        "'label' has targets of different sizes: 2 (2 rows), 1 (1 rows)",
    ),
    "null array": (NUMBERS, [[1.0], None, [2.0]], "'label' is null in 1 of 3 rows"),
    "null and NaN inside": (
        NUMBERS,
        [[1.0], [None], [NAN]],
        "'label' is NaN or infinite in 2 of 3 rows",
    ),
    "null vector": (
        VectorUDT(),
        [DenseVector([1.0]), None, DenseVector([2.0])],
        "'label' is null in 1 of 3 rows",
    ),
    "infinite": (DoubleType(), [1.0, INF, 2.0], "'label' is NaN or infinite in 1 of 3 rows"),
    "empty arrays": (NUMBERS, [[], [], []], "'label' has rows without any targets"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(spark: SparkSession, name: str) -> None:
    type_, targets, message = TARGETS[name]
    rows = [([1.0, 2.0], target) for target in targets]
    df = frame(spark, [rows], features=NUMBERS, label=type_)
    said = error_of(df, classifies=False)
    assert message in said
    assert said.count("olumn '") == 1


@pytest.mark.parametrize("n_partitions", [0, 1, 3])
def test_no_rows_at_all(spark: SparkSession, n_partitions: int) -> None:
    df = frame(spark, [[]] * n_partitions, **KINDS) if n_partitions else table(spark).limit(0)
    assert "The DataFrame is empty" in error_of(df, **COLUMNS)


def test_no_row_left_to_train_on(spark: SparkSession) -> None:
    held_out = table(spark, *[([1.0, 2.0], 0.0, 1.0, True)] * 3, n_good=0)
    said = error_of(held_out, **COLUMNS)
    assert "of 3 rows, 3 are validation rows" in said
    assert "'held_out'" in said
    assert "weight" not in said
    weightless = table(spark, *[([1.0, 2.0], 0.0, 0.0, False)] * 3, n_good=0)
    said = error_of(weightless, **COLUMNS)
    assert "of 3 rows, 3 have weight 0 in column 'w'" in said
    nothing_valid = table(spark, *[(None, 0.0, 1.0, False)] * 3, n_good=0)
    said = error_of(nothing_valid, skip_invalid=True, **COLUMNS)
    assert "of 3 rows, 3 were skipped as invalid" in said


@pytest.mark.parametrize("kind", ["arrays", "vectors"])
def test_rows_without_features(spark: SparkSession, kind: str) -> None:
    empty, type_ = ([], NUMBERS) if kind == "arrays" else (DenseVector([]), VectorUDT())
    rows = [(empty, 0.0), (empty, 1.0), (None, 1.0)]
    df = frame(spark, [rows], features=type_, label=DoubleType())
    said = error_of(df, skip_invalid=True)
    assert "Column 'features' has rows without any features" in said
