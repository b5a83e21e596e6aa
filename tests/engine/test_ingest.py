"""What goes into shards is what was in the DataFrame, however it was typed and laid out."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import (
    frame,
    handles_of,
    leftovers,
    multiset,
    network_for,
    outcome,
    plain_engine,
    shard_bytes,
    shards,
    spec,
    trained,
    vectors,
)
from pyspark.ml.linalg import DenseVector, SparseVector, Vectors, VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    ByteType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StructType,
)
from toys import blobs

from sparknn.core.config import TrainConfig
from sparknn.core.data.batches import rng_for
from sparknn.core.data.rows import DenseSlice, SparseSlice
from sparknn.engine import ingest, open_engine
from sparknn.engine.rdd import RddEngine
from sparknn.engine.scatter import _SCATTER_STREAM

Array = np.ndarray[Any, Any]


def kinds_of(engine: RddEngine) -> set[type]:
    """How the shards with rows are kept."""
    shape = (engine.info.n_features, engine.info.n_targets)
    kept = [handle.rows(*shape)[0] for handle in handles_of(engine)]
    return {type(rows.read(0, 1)) for rows in kept if rows.n_rows}


def rows_of(engine: Any) -> tuple[Array, Array, Array]:
    """Training rows of all workers: X, y and weights."""
    parts = [rows for rows, _ in shards(engine) if rows.n_rows]
    X, y = (np.concatenate([getattr(rows, name) for rows in parts]) for name in ("X", "y"))
    weights = [rows.sample_weight for rows in parts if rows.sample_weight is not None]
    return X, y, np.concatenate(weights)


@pytest.mark.parametrize("layout", ["dense", "sparse", "mixed", "first dense, then sparse"])
def test_vectors_of_every_kind(spark: SparkSession, layout: str) -> None:
    X, y = blobs(50, d=30)
    X[np.random.default_rng(0).random(X.shape) < 0.95] = 0
    kinds = {
        "dense": lambda row: False,
        "sparse": lambda row: True,
        "mixed": lambda row: row % 3 == 0,
        "first dense, then sparse": lambda row: row >= 25,
    }
    df = vectors(spark, X, y, sizes=[25, 25], sparse=kinds[layout])
    with open_engine(df, spec()) as engine:
        # Few entries are stored as entries, whatever the type of the vectors was.
        assert kinds_of(engine) == {SparseSlice}
        assert multiset(*rows_of(engine)[:2]) == multiset(X, y)


def test_sparse_vectors_with_many_entries_are_stored_dense(spark: SparkSession) -> None:
    X, y = blobs(20)
    with open_engine(vectors(spark, X, y, sparse=lambda row: row % 2 == 0), spec()) as engine:
        assert kinds_of(engine) == {DenseSlice}
        assert multiset(*rows_of(engine)[:2]) == multiset(X, y)


def test_a_shard_may_get_entries_and_dense_rows(spark: SparkSession) -> None:
    """Partitions of either kind: every shard is of one kind, and no row is lost or changed."""
    X, y = blobs(60, d=30)
    X[30:][np.random.default_rng(0).random((30, 30)) < 0.97] = 0
    df = vectors(spark, X, y, sizes=[30, 30], sparse=lambda row: row % 2 == 0)
    kinds = set()
    for seed in range(4):
        with open_engine(df, spec(seed=seed, validation_fraction=0.2)) as engine:
            kinds |= kinds_of(engine)
            parts = [rows for pair in shards(engine) for rows in pair if rows.n_rows]
            X_seen, y_seen = (np.concatenate([getattr(p, name) for p in parts]) for name in "Xy")
            assert multiset(X_seen, y_seen) == multiset(X, y)
    assert kinds == {DenseSlice, SparseSlice}


def test_a_few_dense_rows_do_not_make_wide_shards_dense(spark: SparkSession) -> None:
    X, y = np.zeros((202, 2000), np.float32), np.arange(202) % 2.0
    X[np.arange(200), np.arange(200)] = 1
    X[200:] = 1
    df = vectors(spark, X[::-1], y, sizes=[2, 100, 100], sparse=lambda row: row >= 2)
    for seed in range(5):
        with open_engine(df, spec(seed=seed)) as engine:
            assert kinds_of(engine) == {SparseSlice}


def test_rows_are_read_once(spark: SparkSession) -> None:
    """What comes before may be dear, or draw random numbers: no look ahead, no second pass."""
    X, y = blobs(40)
    read = spark.sparkContext.accumulator(0)

    def row(pair: tuple[list[float], float]) -> tuple[DenseVector, float]:
        read.add(1)
        return DenseVector(pair[0]), pair[1]

    pairs = spark.sparkContext.parallelize(list(zip(X.tolist(), y.tolist(), strict=True)), 3)
    schema = StructType().add("features", VectorUDT()).add("label", DoubleType())
    df = spark.createDataFrame(pairs.map(row), schema)
    with open_engine(df, spec()) as engine:
        assert engine.info.n_rows == read.value == 40
        engine.statistics()
        assert read.value == 40


def test_wide_sparse_rows_stay_sparse_on_disk(spark: SparkSession) -> None:
    d = 50_000
    entries = [{0: 1.0, d - 1: -2.5}, {}, {31_000: 7.0}, {5: 0.1, 6: 0.2, 7: 0.3}]
    rows = [(SparseVector(d, entry), float(i % 2)) for i, entry in enumerate(entries)]
    df = frame(spark, [rows[:1], rows[1:]], features=VectorUDT(), label=DoubleType())
    with open_engine(df, spec(n_workers=3)) as engine:
        assert engine.info.n_features == d
        files = [Path(handle.folder, "train", "x") for handle in handles_of(engine)]
        assert sum(file.stat().st_size for file in files) == 4 * sum(map(len, entries))
        X, _, _ = rows_of(engine)
        expected = np.zeros((4, d), dtype=np.float32)
        for row, entry in enumerate(entries):
            expected[row, list(entry)] = list(entry.values())
        assert multiset(X) == multiset(expected)
        statistics = engine.statistics()
        np.testing.assert_allclose(statistics.mean, expected.astype(np.float64).mean(axis=0))
        np.testing.assert_allclose(statistics.high, expected.max(axis=0))


ARRAYS: list[tuple[DataType, list[list[Any]]]] = [
    (ByteType(), [[1, -128], [127, 0], [3, 4]]),
    (ShortType(), [[1, -32768], [32767, 0], [3, 4]]),
    (IntegerType(), [[1, -(2**24)], [2**24, 0], [3, 4]]),
    (LongType(), [[1, -(2**40)], [2**40, 0], [3, 4]]),
    (FloatType(), [[0.5, -1.25], [1e-40, 3e38], [3.0, 4.0]]),
    (DoubleType(), [[0.1, -1e-300], [1e30, 0.0], [3.0, 4.0]]),
    (DecimalType(20, 4), [[Decimal("0.1000"), Decimal(-3)], [Decimal(7), Decimal(0)], [3, 4]]),
]


@pytest.mark.parametrize(("kind", "values"), ARRAYS, ids=lambda value: str(value)[:12])
def test_arrays_and_labels_of_every_numeric_type(
    spark: SparkSession, kind: DataType, values: list[list[Any]]
) -> None:
    exact = [[Decimal(x) if isinstance(kind, DecimalType) else x for x in row] for row in values]
    one, zero = exact[2][0] - exact[2][0] + type(exact[2][0])(1), exact[2][0] - exact[2][0]
    rows = [(x, label) for x, label in zip(exact, [zero, one, one], strict=True)]
    df = frame(spark, [rows], features=ArrayType(kind), label=kind)
    with open_engine(df, spec()) as engine:
        expected = np.array([[float(x) for x in row] for row in values]).astype(np.float32)
        assert multiset(*rows_of(engine)[:2]) == multiset(expected, np.array([0.0, 1, 1]))
        assert engine.info.class_weights == {0: 1.0, 1: 2.0}


@pytest.mark.parametrize("kind", ["array", "dense", "sparse", "scalar", "array of one"])
def test_regression_targets(spark: SparkSession, kind: str) -> None:
    X, _ = blobs(12)
    Y = np.array([[i / 7, 0.0] for i in range(12)])
    if kind in ("scalar", "array of one"):
        Y = Y[:, :1]
    makers: dict[str, tuple[DataType, Any]] = {
        "array": (ArrayType(FloatType()), lambda t: t.tolist()),
        "array of one": (ArrayType(DoubleType()), lambda t: t.tolist()),
        "dense": (VectorUDT(), DenseVector),
        "sparse": (VectorUDT(), lambda t: SparseVector(2, {0: t[0]} if t[0] else {})),
        "scalar": (DoubleType(), lambda t: float(t[0])),
    }
    type_, make = makers[kind]
    rows = [(DenseVector(x), make(t)) for x, t in zip(X, Y, strict=True)]
    df = frame(spark, [rows[:5], rows[5:]], features=VectorUDT(), label=type_)
    with open_engine(df, spec(classifies=False)) as engine:
        assert engine.info.n_targets == Y.shape[1]
        assert engine.info.class_weights == {}
        stored_x, stored_y, _ = rows_of(engine)
        expected = Y.astype(np.float32) if kind == "array" else Y
        assert stored_y.shape == Y.shape
        assert multiset(stored_x, stored_y) == multiset(X, expected)


def test_weights_counts_and_class_weights(spark: SparkSession) -> None:
    X, y = blobs(40)
    weight = np.where(np.arange(40) % 4 == 0, 0.0, np.arange(40) / 8)
    validation = np.arange(40) % 5 == 1
    df = vectors(spark, X, y, sizes=[10, 30], weight=weight, validation=validation)
    columns = spec(n_workers=3, weight="weight", validation_indicator="validation")
    with open_engine(df, columns) as engine:
        info = engine.info
        kept = weight > 0
        train = kept & ~validation
        assert (info.n_rows, info.n_validation) == (train.sum(), (kept & validation).sum())
        assert sum(info.rows_per_worker) == info.n_rows
        assert info.weight_sum == weight[train].sum()
        assert info.class_weights == {k: weight[train & (y == k)].sum() for k in range(3)}
        assert multiset(*rows_of(engine)) == multiset(X[train], y[train], weight[train])
        held_out = [rows for _, rows in shards(engine) if rows.n_rows]
        stored_x = np.concatenate([rows.X for rows in held_out])
        assert multiset(stored_x) == multiset(X[kept & validation])


def test_two_ingests_write_the_same_bytes(spark: SparkSession) -> None:
    """The shards depend on the seed, the source partitions and, by design, on arrow's batches."""
    X, y = blobs(300)
    df = vectors(spark, X, y, sizes=[100, 0, 200])
    with open_engine(df, spec(n_workers=3, validation_fraction=0.2)) as engine:
        first, digest = shard_bytes(engine), engine.digest()
    with open_engine(df, spec(n_workers=3, validation_fraction=0.2)) as engine:
        assert shard_bytes(engine) == first
        assert engine.digest() == digest
    with open_engine(df, spec(n_workers=3, validation_fraction=0.2, seed=4)) as engine:
        assert shard_bytes(engine) != first
        # Distributed differently, they are the same rows.
        assert engine.digest() == digest


def test_the_digest_sees_a_label_a_weight_and_unshuffled_rows_on_other_workers(
    spark: SparkSession,
) -> None:
    X, y = blobs(30)
    weight = np.ones(30)
    held_out = np.arange(30) % 5 == 2  # every fifth from the end, too
    swapped = np.flatnonzero(y == 0)[-1], np.flatnonzero(y == 1)[-1]
    other_X, other_y, other_weight = X.copy(), y.copy(), weight.copy()
    other_y[list(swapped)] = 1, 0
    other_X[5] += 1
    other_weight[7] = 2
    columns = spec(weight="weight", validation_indicator="validation", shuffle=False)
    found = set()
    for rows in [
        (X, y, weight), (other_X, y, weight), (X, other_y, weight), (X, y, other_weight),
        (X[::-1], y[::-1], weight),
    ]:  # fmt: skip
        df = vectors(spark, rows[0], rows[1], [10, 20], rows[2], held_out)
        with open_engine(df, columns) as engine:
            found.add(engine.digest())
    assert len(found) == 5


@pytest.mark.parametrize("records", ["1", "7", "10000"])
def test_tiny_arrow_batches_still_reach_every_worker(spark: SparkSession, records: str) -> None:
    X, y = blobs(41)
    df = vectors(spark, X, y, sizes=[20, 21])
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    spark.conf.set(name, records)
    try:
        with open_engine(df, spec(n_workers=4)) as engine:
            counts = engine.info.rows_per_worker
            assert max(counts) - min(counts) <= 2
            assert multiset(*rows_of(engine)[:2]) == multiset(X, y)
            configs = [TrainConfig(network_for(engine.info), max_iter=1)]
            assert outcome(trained(engine, configs)) == outcome(
                trained(plain_engine(engine), configs)
            )
        assert spark.conf.get(name) == records
    finally:
        spark.conf.set(name, before)


@pytest.mark.parametrize("adaptive", ["true", "false"])
def test_with_and_without_adaptive_execution(spark: SparkSession, adaptive: str) -> None:
    name = "spark.sql.adaptive.enabled"
    before = spark.conf.get(name)
    spark.conf.set(name, adaptive)
    try:
        rows = spark.range(1000).withColumn("k", F.col("id") % 3)
        # An exchange upstream of ours, which adaptive execution may coalesce.
        grouped = rows.groupBy("id", "k").count()
        df = grouped.select(
            F.array(F.col("id").cast("double"), F.lit(1.0)).alias("features"),
            F.col("k").alias("label"),
        )
        with open_engine(df, spec(n_workers=3)) as engine:
            X, y, _ = rows_of(engine)
            assert multiset(X, y) == [(float(i), 1.0, float(i % 3)) for i in range(1000)]
    finally:
        spark.conf.set(name, before)


def test_column_names_with_dots_spaces_and_backticks(spark: SparkSession) -> None:
    X, y = blobs(20)
    names = ["my features.v1", "the label.x", "row`s weight", "is held out?"]
    df = vectors(spark, X, y, weight=np.ones(20), validation=np.arange(20) < 5).toDF(*names)
    columns = spec(
        features=names[0], label=names[1], weight=names[2], validation_indicator=names[3]
    )
    with open_engine(df, columns) as engine:
        assert (engine.info.n_rows, engine.info.n_validation) == (15, 5)


def test_shuffled_rows_mix_what_the_source_sorted(spark: SparkSession) -> None:
    X, _ = blobs(800)
    y = np.repeat(np.arange(8.0), 100)
    df = vectors(spark, X, y, sizes=[100] * 8)
    with open_engine(df, spec(n_workers=4)) as engine:
        for rows, _ in shards(engine):
            counts = np.bincount(rows.y.astype(int), minlength=8)
            assert rows.n_rows == 200
            assert counts.tolist() == [25] * 8


def test_any_run_of_rows_in_a_shard_is_a_sample_of_all(spark: SparkSession) -> None:
    """``miniBatchFraction`` and windows take consecutive rows for a random draw."""
    X, _ = blobs(800)
    y = np.repeat(np.arange(8.0), 100)
    df = vectors(spark, X, y, sizes=[100] * 8)
    with open_engine(df, spec(n_workers=2)) as engine:
        for rows, _ in shards(engine):
            for start in range(0, 400, 80):
                assert len(np.unique(rows.y[start : start + 80])) >= 6


def test_unshuffled_partitions_stay_together(spark: SparkSession) -> None:
    X, _ = blobs(60)
    y = np.repeat(np.arange(3.0), 20)
    df = vectors(spark, X, y, sizes=[20, 20, 20])
    with open_engine(df, spec(n_workers=3, shuffle=False)) as engine:
        for worker, (rows, _) in enumerate(shards(engine)):
            np.testing.assert_array_equal(rows.y, np.full(20, float(worker)))
            np.testing.assert_array_equal(rows.X, X[20 * worker : 20 * worker + 20])


def test_validation_fraction_is_a_share_and_always_the_same(spark: SparkSession) -> None:
    df = spark.range(4000).select(
        F.array(F.col("id").cast("double")).alias("features"), (F.col("id") % 2).alias("label")
    )
    columns = spec(n_workers=3, validation_fraction=0.1)

    def held_out() -> Array:
        with open_engine(df, columns) as engine:
            assert engine.info.n_rows + engine.info.n_validation == 4000
            return np.sort(np.concatenate([v.X[:, 0] for _, v in shards(engine) if v.n_rows]))

    first = held_out()
    # Four standard deviations of a binomial draw.
    assert abs(len(first) - 400) < 4 * np.sqrt(4000 * 0.1 * 0.9)
    np.testing.assert_array_equal(held_out(), first)
    assert leftovers(spark) == []


@pytest.mark.parametrize(
    ("n_rows", "fraction", "seed"), [(10, 0.05, 0), (10, 0.05, 3), (2, 0.2, 0), (2, 0.2, 1)]
)
def test_a_fraction_of_few_rows_leaves_one_on_either_side(
    spark: SparkSession, n_rows: int, fraction: float, seed: int
) -> None:
    """Seeds whose draw does so already keep it; of the others, one row changes sides."""
    X, half = np.arange(n_rows, dtype=np.float32)[:, None], n_rows // 2
    draws = np.concatenate(
        [rng_for(seed, _SCATTER_STREAM, source, 1).random(half) for source in (0, 1)]
    )
    n_drawn = int((draws < fraction).sum())
    assert n_drawn == {(10, 0): 0, (10, 3): 2, (2, 0): 0, (2, 1): 2}[n_rows, seed]
    expected = np.argsort(draws)[: min(max(n_drawn, 1), n_rows - 1)]
    df = vectors(spark, X, np.arange(n_rows) % 2.0, sizes=[half, half])
    with open_engine(df, spec(seed=seed, validation_fraction=fraction)) as engine:
        held_out = [v.X[:, 0] for _, v in shards(engine) if v.n_rows]
        assert sorted(np.concatenate(held_out)) == sorted(expected)
        assert engine.info.n_rows == n_rows - engine.info.n_validation
    assert leftovers(spark) == []


def test_validation_column_may_be_named_like_one_of_ours(spark: SparkSession) -> None:
    rows = [(Vectors.dense([i, 1.0]), i % 2, 1.0, i < 3) for i in range(9)]
    df = frame(spark, [rows], x=VectorUDT(), type=IntegerType(), size=DoubleType(), w=BooleanType())
    columns = spec(features="x", label="type", weight="size", validation_indicator="w")
    with open_engine(df, columns) as engine:
        assert (engine.info.n_rows, engine.info.n_validation) == (6, 3)


def test_blocks_as_rows_make_the_same_shards_as_arrow_batches(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyspark 3.5 does not limit the bytes of an arrow batch, and gets its blocks as rows."""
    X, y = blobs(60, d=30)
    X[np.random.default_rng(0).random(X.shape) < 0.95] = 0
    written = {}
    for bounded in (True, False):
        monkeypatch.setattr(ingest, "_limits_arrow_bytes", lambda df, bounded=bounded: bounded)
        df = vectors(spark, X, y, sizes=[25, 35], validation=np.arange(60) % 5 == 0)
        with open_engine(df, spec(validation_indicator="validation", n_workers=3)) as engine:
            written[bounded] = shard_bytes(engine)
    assert written[True] == written[False]


def test_rows_of_weight_0_count_as_absent(spark: SparkSession) -> None:
    """Whatever else they hold."""
    X, y = blobs(40)
    weight = np.arange(40) % 3.0
    with open_engine(vectors(spark, X[weight > 0], y[weight > 0]), spec()) as engine:
        expected = shard_bytes(engine)
    X[3], y[6] = np.nan, -7
    df = vectors(spark, X, y, weight=weight).withColumn("weight", F.signum("weight"))
    with open_engine(df, spec(weight="weight")) as engine:
        assert shard_bytes(engine) == expected


@pytest.mark.parametrize(("least", "n_workers"), [(10, 3), (30, 2), (0, 5), (5, 5)])
def test_few_rows_go_to_fewer_workers(spark: SparkSession, least: int, n_workers: int) -> None:
    X, y = blobs(35, 3)[:2]
    df = vectors(spark, X, y)
    with RddEngine(df, spec(n_workers=5, least_rows=least)) as engine:
        assert engine.n_workers == len(engine.info.rows_per_worker) == n_workers
        got = shard_bytes(engine)
    with RddEngine(df, spec(n_workers=n_workers)) as engine:
        assert shard_bytes(engine) == got
    assert not leftovers(spark)
