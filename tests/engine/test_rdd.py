"""Spark's engine does to the byte what the plain loop does over the same shards."""

import logging
from typing import Any

import numpy as np
import pytest
from engines import (
    handles_of,
    leftovers,
    network_for,
    outcome,
    plain_engine,
    shards,
    spec,
    trained,
    vectors,
)
from pyspark.sql import SparkSession
from toys import Array, blobs, curve

from sparknn.core.config import AveragingConfig, RoundRequest, Standardizer, TrainConfig
from sparknn.engine import open_engine, rdd, spark_engine
from sparknn.engine.spill import ShardHandle


def config(network: Any, **changes: Any) -> TrainConfig:
    return TrainConfig(network, **({"seed": 5, "max_iter": 3, "batch_size": 16} | changes))


@pytest.mark.parametrize("n_workers", [1, 2, 3, 7])
def test_equals_the_plain_engine_to_the_byte(spark: SparkSession, n_workers: int) -> None:
    X, y = blobs(203)
    rng = np.random.default_rng(1)
    df = vectors(
        spark,
        X,
        y,
        # Skewed, with empty partitions and one that holds a single row.
        sizes=[0, 140, 1, 0, 62],
        weight=rng.choice([0, 0.3, 1, 2.5], size=203),
        validation=rng.random(203) < 0.25,
    )
    columns = spec(n_workers=n_workers, weight="weight", validation_indicator="validation")
    with open_engine(df, columns) as engine:
        assert engine.has_validation
        assert engine.n_slots == 2
        network = network_for(engine.info)
        configs = [
            config(network, solver="momentum"),
            config(network, solver="adam", step_size=0.01, seed=6, dropout=0.2, max_iter=2),
            config(network, solver="ngsgd", seed=7),
            config(network, local_state="reset", mini_batch_fraction=0.4, local_epochs=2, l2=0.01),
        ]
        averaging = AveragingConfig("nesterov", 0.5, final="best")
        assert outcome(trained(engine, configs, averaging)) == outcome(
            trained(plain_engine(engine), configs, averaging)
        )
    assert leftovers(spark) == []


@pytest.mark.parametrize("depth", [1, 3])
def test_sparse_rows_and_more_workers_than_rows(spark: SparkSession, depth: int) -> None:
    X = np.zeros((5, 40), dtype=np.float32)
    X[np.arange(5), [3, 3, 39, 0, 7]] = [1, -2, 0.5, 4, 1e-3]
    df = vectors(spark, X, np.array([0.0, 1, 2, 1, 0]), sizes=[2, 0, 3], sparse=lambda row: True)
    with open_engine(df, spec(n_workers=7), aggregation_depth=depth) as engine:
        assert sum(engine.info.rows_per_worker) == 5
        assert 0 in engine.info.rows_per_worker
        configs = [config(network_for(engine.info))]
        ours = trained(engine, configs)
        assert outcome(ours) == outcome(trained(plain_engine(engine), configs))
        assert ours[0].history[-1].workers_left_out == 0


def wide_rows(n: int, d: int = 2500) -> tuple[Array, Array]:
    """Rows that have some of every 43rd column."""
    X = np.zeros((n, d), dtype=np.float32)
    rng, k = np.random.default_rng(4), len(range(0, d, 43))
    X[:, ::43] = rng.normal(size=(n, k)) * (rng.random((n, k)) < 0.2)
    return X, (X[:, 43] > X[:, 86]) + 1.0 * (X[:, 0] > 0)


def test_a_sparse_block_equals_the_plain_engines_to_the_byte(spark: SparkSession) -> None:
    X, y = wide_rows(150)
    df = vectors(
        spark,
        X,
        y,
        sizes=[0, 100, 50],
        validation=np.arange(150) % 5 == 0,
        # Some rows come dense; they are few, and kept as the others are.
        sparse=lambda row: row % 50 > 0,
    )
    with open_engine(df, spec(n_workers=3, validation_indicator="validation")) as engine:
        assert engine.info.sparse
        statistics = engine.statistics()
        assert statistics.filled is not None
        shift = np.where(np.arange(2500) == 43, 0.5, 0).astype(np.float32)
        scale = Standardizer(shift, np.full(2500, 1.5, np.float32))
        network = network_for(engine.info)
        configs = [
            config(network, n_sparse=2500, solver=solver, l2=0.01, standardizer=scale)
            for solver in ("momentum", "adam", "ngsgd")
        ]
        averaging = AveragingConfig("nesterov", 0.5, final="best")
        assert outcome(trained(engine, configs, averaging)) == outcome(
            trained(plain_engine(engine), configs, averaging)
        )
    assert leftovers(spark) == []


@pytest.mark.parametrize(
    ("d", "n_dense", "sparse"), [(2047, 0, False), (2048, 0, True), (2500, 40, False)]
)
def test_when_rows_are_columns_of_sparse_rows(
    spark: SparkSession, d: int, n_dense: int, sparse: bool
) -> None:
    X, y = wide_rows(60, d)
    X[:n_dense] = 1
    df = vectors(spark, X, y, sparse=lambda row: True)
    with open_engine(df, spec(shuffle=False, n_workers=1)) as engine:
        assert engine.info.sparse == sparse


def test_regression_with_two_targets(spark: SparkSession) -> None:
    X, y = curve(90, k=2)
    df = vectors(spark, X, y, sizes=[30, 60])
    with open_engine(df, spec(classifies=False, n_workers=3)) as engine:
        assert engine.info.n_targets == 2
        assert engine.info.class_weights == {}
        statistics = engine.statistics()
        scale = Standardizer(
            statistics.mean.astype(np.float32), (1 / statistics.deviation).astype(np.float32)
        )
        configs = [config(network_for(engine.info, classifies=False), standardizer=scale)]
        assert outcome(trained(engine, configs)) == outcome(trained(plain_engine(engine), configs))


def test_one_worker_that_diverges_is_left_out(spark: SparkSession) -> None:
    X, y = curve(40)
    X[:20] *= 1e30
    df = vectors(spark, X, y[:, 0], sizes=[20, 20])
    with open_engine(df, spec(classifies=False, shuffle=False)) as engine:
        configs = [config(network_for(engine.info, classifies=False), step_size=0.01)]
        ours = trained(engine, configs)
        assert [record.workers_left_out for record in ours[0].history] == [1, 1, 1]
        assert outcome(ours) == outcome(trained(plain_engine(engine), configs))


def test_two_engines_at_once_and_two_runs_of_one(spark: SparkSession) -> None:
    X, y = blobs(60)
    df = vectors(spark, X, y, sizes=[20, 40])
    with open_engine(df, spec()) as one, open_engine(df, spec()) as two:
        configs = [config(network_for(one.info))]
        first = outcome(trained(one, configs))
        assert outcome(trained(two, configs)) == first
        assert outcome(trained(one, configs)) == first
        for (a, _), (b, _) in zip(shards(one), shards(two), strict=True):
            np.testing.assert_array_equal(a.X, b.X)
    assert leftovers(spark) == []


def shards_on(*executors: tuple[str, str]) -> list[ShardHandle]:
    """Handles of shards by host and scratch folder."""
    return [
        ShardHandle(n, host, f"{scratch}/sparknn-f/{n}-0", scratch, classifies=True)
        for n, (host, scratch) in enumerate(executors)
    ]


A, B = ("one", "/disk/a"), ("one", "/disk/b")
ELSEWHERE = ("another", "/disk/a")


@pytest.mark.parametrize(
    ("executors", "n_executors", "counts"),
    [
        ([A] * 6 + [B] * 2, 2, "(6, 2)"),
        ([A] * 3, 2, "(3, 0)"),
        ([A] * 3 + [ELSEWHERE], 3, "(3, 1, 0)"),
        # Executors that wrote a shard and are gone since.
        ([A] * 3 + [B], 1, "(3, 1)"),
        ([A] * 4 + [B] * 3, 2, ""),
        ([A] * 2 + [ELSEWHERE] * 2, 2, ""),
        ([A], 8, ""),
        ([A] * 8, 1, ""),
    ],
)
def test_uneven_shards_are_reported_per_executor(
    executors: list[tuple[str, str]],
    n_executors: int,
    counts: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "sparknn"):
        spark_engine._warn_if_skewed(shards_on(*executors), n_executors)
    messages = [record.getMessage() for record in caplog.records]
    assert [counts in message for message in messages] == ([True] if counts else [])


def test_the_shards_of_one_executor_are_never_uneven(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    with open_engine(vectors(spark, *blobs(20)), spec(n_workers=3)) as engine:
        assert len({handle.executor for handle in handles_of(engine)}) == 1
    assert "unevenly" not in caplog.text


@pytest.mark.parametrize(("n_workers", "depth"), [(4, 2), (8, 2), (9, 3)])
def test_results_that_reach_the_driver(spark: SparkSession, n_workers: int, depth: int) -> None:
    n_merges = 0

    def add(left: int, right: int) -> int:
        # Those in the workers count for themselves.
        nonlocal n_merges
        n_merges += 1
        return left + right

    ones = spark.sparkContext.parallelize([1] * n_workers, n_workers)
    assert ones.treeAggregate(0, int.__add__, add, depth) == n_workers
    assert rdd._n_results(n_workers, depth) == 1 + n_merges


def test_results_above_spark_s_limit_end_a_fit_before_its_first_round(spark: SparkSession) -> None:
    with open_engine(vectors(spark, *blobs(20)), spec()) as engine:
        # Takes no memory.
        state = np.broadcast_to(np.float32(0), (1, 200_000_000))
        request = RoundRequest(config(network_for(engine.info)), state)
        with pytest.raises(RuntimeError, match=r"Set it to 3g"):
            engine.run_round([request], 0)
