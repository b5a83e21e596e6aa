"""Spark's engine does to the byte what the plain loop does over the same shards."""

from typing import Any

import numpy as np
import pytest
from engines import (
    intake,
    leftovers,
    network_for,
    outcome,
    plain_engine,
    shards,
    trained,
    vectors,
)
from pyspark.sql import SparkSession
from toys import blobs, curve

from sparknn.core.fit import Averaging
from sparknn.core.plan import Plan, Standardizer
from sparknn.engine import open_engine


def plan(network: Any, **changes: Any) -> Plan:
    return Plan(network, **({"seed": 5, "max_iter": 3, "batch_size": 16} | changes))


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
    columns = intake(n_workers=n_workers, weight="weight", validation_indicator="validation")
    with open_engine(df, columns) as engine:
        assert engine.has_validation
        assert engine.n_slots == 2
        network = network_for(engine.facts)
        plans = [
            plan(network, solver="momentum"),
            plan(network, solver="adam", step_size=0.01, seed=6, dropout=0.2, max_iter=2),
            plan(network, solver="ngsgd", seed=7),
            plan(network, local_state="reset", mini_batch_fraction=0.4, local_epochs=2, l2=0.01),
        ]
        averaging = Averaging("nesterov", 0.5, final="best")
        assert outcome(trained(engine, plans, averaging)) == outcome(
            trained(plain_engine(engine), plans, averaging)
        )
    assert leftovers(spark) == []


@pytest.mark.parametrize("depth", [1, 3])
def test_sparse_rows_and_more_workers_than_rows(spark: SparkSession, depth: int) -> None:
    X = np.zeros((5, 40), dtype=np.float32)
    X[np.arange(5), [3, 3, 39, 0, 7]] = [1, -2, 0.5, 4, 1e-3]
    df = vectors(spark, X, np.array([0.0, 1, 2, 1, 0]), sizes=[2, 0, 3], sparse=lambda row: True)
    with open_engine(df, intake(n_workers=7), aggregation_depth=depth) as engine:
        assert sum(engine.facts.rows_per_worker) == 5
        assert 0 in engine.facts.rows_per_worker
        plans = [plan(network_for(engine.facts))]
        ours = trained(engine, plans)
        assert outcome(ours) == outcome(trained(plain_engine(engine), plans))
        assert ours[0].history[-1].workers_left_out == 0


def test_regression_with_two_targets(spark: SparkSession) -> None:
    X, y = curve(90, k=2)
    df = vectors(spark, X, y, sizes=[30, 60])
    with open_engine(df, intake(classifies=False, n_workers=3)) as engine:
        assert engine.facts.n_targets == 2
        assert engine.facts.class_weights == {}
        moments = engine.moments()
        scale = Standardizer(
            moments.mean.astype(np.float32), (1 / moments.deviation).astype(np.float32)
        )
        plans = [plan(network_for(engine.facts, classifies=False), standardizer=scale)]
        assert outcome(trained(engine, plans)) == outcome(trained(plain_engine(engine), plans))


def test_one_worker_that_diverges_is_left_out(spark: SparkSession) -> None:
    X, y = curve(40)
    X[:20] *= 1e30
    df = vectors(spark, X, y[:, 0], sizes=[20, 20])
    with open_engine(df, intake(classifies=False, shuffle=False)) as engine:
        plans = [plan(network_for(engine.facts, classifies=False), step_size=0.01)]
        ours = trained(engine, plans)
        assert [record.workers_left_out for record in ours[0].history] == [1, 1, 1]
        assert outcome(ours) == outcome(trained(plain_engine(engine), plans))


def test_two_engines_at_once_and_two_runs_of_one(spark: SparkSession) -> None:
    X, y = blobs(60)
    df = vectors(spark, X, y, sizes=[20, 40])
    with open_engine(df, intake()) as one, open_engine(df, intake()) as two:
        plans = [plan(network_for(one.facts))]
        first = outcome(trained(one, plans))
        assert outcome(trained(two, plans)) == first
        assert outcome(trained(one, plans)) == first
        for (a, _), (b, _) in zip(shards(one), shards(two), strict=True):
            np.testing.assert_array_equal(a.X, b.X)
    assert leftovers(spark) == []
