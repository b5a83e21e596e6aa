"""Networks of 28 million parameters: memory, messages and seconds of a sum."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import numpy as np
import processes
import pytest
from engines import spec
from pyspark.sql import SparkSession

from sparknn.core.config import RoundRequest, TrainConfig
from sparknn.core.nn.network import Network
from sparknn.engine import open_engine

ROOT = Path(__file__).resolve().parents[2]


def large_fit(scratch: Path, n_workers: int, **settings: str) -> "subprocess.CompletedProcess[str]":
    program = Path(__file__).with_name("large_fit.py")
    command = [sys.executable, program, scratch, n_workers, json.dumps(settings)]
    return processes.run(command, timeout_s=900, cwd=ROOT)


@pytest.mark.parametrize("n_workers", [2, 8])
def test_a_large_network(n_workers: int, tmp_path: Path) -> None:
    """With Spark's default limit of 1 GiB for results."""
    done = large_fit(tmp_path, n_workers, **{"spark.driver.memory": "3g"})
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(n_workers, "workers:", found)
    assert found["n_params"] > 28e6
    assert found["finite"]
    assert found["message_bytes"] < 4 * found["message_values"] + 10_000
    # The solvers have a buffer of theta's size, which is averaged, too.
    assert found["python_bytes"] <= 20 * found["theta_bytes"] + (64 << 20)


def test_results_above_spark_s_limit_are_an_error_before_the_first_round(tmp_path: Path) -> None:
    done = large_fit(tmp_path, 2, **{"spark.driver.maxResultSize": "100m"})
    assert done.returncode != 0
    assert "spark.driver.maxResultSize" in done.stderr, done.stderr[-4000:]
    assert list(tmp_path.glob("message-*")) == []


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with faults.session("local[2]", tmp_path_factory.mktemp("scratch")) as spark:
        yield spark


def test_seconds_of_a_sum(spark: SparkSession) -> None:
    """Of rounds whose training takes next to nothing; a figure, not a claim."""
    for n_workers in (2, 8):
        df = spark.range(n_workers).selectExpr("array_repeat(0.5D, 784) as features", "1D as label")
        with open_engine(df, spec(n_workers=n_workers)) as engine:
            for hidden in ([300], [1024, 1024], [4096, 4096, 2048]):
                network = Network((784, *hidden, 10))
                theta = network.init(np.random.default_rng(0))
                config = TrainConfig(network, solver="sgd", batch_size=1)
                request = RoundRequest(config, theta[None])
                seconds = []
                for round_ in range(4):
                    started = time.perf_counter()
                    result = engine.run_round([request], round_)
                    trained = sum(r.seconds for r in result.totals[0].reports) / 2
                    seconds.append(time.perf_counter() - started - trained)
                listed = ", ".join(f"{each:.2f}" for each in sorted(seconds[1:]))
                print(f"{n_workers} workers, {theta.size:,} parameters: {listed} s")
