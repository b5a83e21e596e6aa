"""Threads of pyspark's tuning share one set of job properties; fits in them must not notice."""

import threading
from typing import Any

import pytest
from engines import network_for, spec, vectors
from pyspark.sql import SparkSession
from toys import blobs

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine import open_engine, rdd


def test_a_tag_does_not_reach_other_threads(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what cancels this fit's jobs would cancel theirs."""
    sc = spark.sparkContext
    context = sc._jsc.sc()
    # As pyspark.util.inheritable_thread_target does it from Spark 4 on.
    shared = context.getLocalProperties().clone()
    seen: list[Any] = []
    looked = rdd._missing_partitions

    def look() -> None:
        context.setLocalProperties(shared)
        seen.append((len(sc.getJobTags()), sc.getLocalProperty("spark.job.description")))

    def elsewhere(target: Any) -> None:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    def while_a_round_is_described(totals: Any) -> Any:
        seen.append(len(sc.getJobTags()))
        elsewhere(look)
        return looked(totals)

    def fit() -> None:
        context.setLocalProperties(shared)
        with open_engine(vectors(spark, *blobs(20)), spec()) as engine:
            run(
                engine,
                [FitState(TrainConfig(network_for(engine.info), max_iter=1), AveragingConfig(), 2)],
            )

    monkeypatch.setattr(rdd, "_missing_partitions", while_a_round_is_described)
    elsewhere(fit)
    assert seen == [1, (0, None)]
