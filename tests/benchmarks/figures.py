"""The figures that the README states: ``make bench``, or ``make bench ARGS='step ingest'``.

Times are compared with something that runs in turns with them; only the accuracy stands alone.
"""

from __future__ import annotations

import os

# One thread, as in Spark's Python workers; before numpy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sparse_figures import sparse, sparse_large
from timing import in_turns, ratio, spread

from sparknn import NeuralNetClassifier
from sparknn.cli.jobfile import load_train
from sparknn.core.config import RoundRequest, TrainConfig
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.worker_round import train_locally
from sparknn.engine import open_engine
from sparknn.engine.interface import DataSpec
from sparknn.engine.shards import ShardRows

ROOT = Path(__file__).parents[2]
MNIST = ROOT / "notebooks/data/mnist"
LAYERS = (784, 300, 10)
SEEDS = range(1, 6)


@cache
def session() -> SparkSession:
    return SparkSession.builder.master("local[2]").appName("sparknn bench").getOrCreate()


@cache
def mnist(name: str) -> DataFrame:
    """MNIST as a cached column of vectors."""
    rows = session().read.parquet(str(MNIST / f"{name}.parquet")).repartition(4, "label")
    vector = array_to_vector(F.col("pixels").cast("array<double>")).alias("pixels")
    df = rows.select("label", vector).cache()
    df.count()
    return df


def demo_job() -> None:
    """Accuracy and fit time of the demo's job file, on warm Spark."""
    net = load_train(str(ROOT / "conf/mnist.toml")).estimator
    assert isinstance(net, NeuralNetClassifier)
    net.setParams(featuresCol="pixels", labelCol="label")
    # As in the demo: straight from the files, not from a cache.
    train = session().read.parquet(str(MNIST / "train.parquet"))
    net.fit(train)
    accuracies, seconds = [], []
    for seed in SEEDS:
        (elapsed,) = in_turns(lambda seed=seed: models.append(net.setSeed(seed).fit(train)), runs=1)
        seconds += elapsed
        predicted = models[-1].transform(mnist("test"))
        accuracy = predicted.select(F.avg((F.col("prediction") == F.col("label")).cast("double")))
        accuracies.append(100 * accuracy.head()[0])
    listed = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    print(f"demo: test accuracy, worst of {len(SEEDS)} seeds: {min(accuracies):.2f} % ({listed})")
    print(f"demo: fit, ingest included: {spread(seconds)}")


models: list[object] = []


def empty_round() -> None:
    """A round that trains nothing, against an empty treeAggregate over the same partitions."""
    spec = DataSpec("pixels", "label", classifies=True, n_workers=2, seed=1)
    network = Network(LAYERS)
    theta = network.init(np.random.default_rng(0))
    request = RoundRequest(
        TrainConfig(network), np.vstack([theta, np.zeros_like(theta)]), train=False
    )
    with open_engine(mnist("train"), spec) as engine:
        handles = engine._handles
        assert handles is not None

        def aggregate() -> int:
            ones = handles.mapPartitions(lambda partition: [sum(1 for _ in partition)])
            return ones.treeAggregate(0, int.__add__, int.__add__, 2)

        in_turns(lambda: engine.run_round([request], 0), aggregate, runs=3)
        ours, floor = in_turns(lambda: engine.run_round([request], 0), aggregate, runs=25)
    print(f"empty round: {spread(ours)}; empty treeAggregate: {spread(floor)}")
    print(f"empty round: {ratio(ours, floor)} the empty treeAggregate")


def ingest() -> None:
    """60,000 x 784 from a cached column of vectors to shuffled shards."""
    spec = DataSpec("pixels", "label", classifies=True, n_workers=2, seed=1)
    seconds = []
    for _ in range(6):
        with open_engine(mnist("train"), spec) as engine:
            seconds.append(engine.ingest_s)
    print(f"ingest of 60,000 x 784, shuffled: {spread(seconds[1:])}")


def step() -> None:
    """``train_locally`` against the five matrix products that it cannot avoid."""
    n_rows, batch = 12_800, 128
    rng = np.random.default_rng(0)
    rows = ArrayRows(rng.random((n_rows, 784), np.float32), rng.integers(10, size=n_rows) * 1.0)
    network = Network(LAYERS)
    theta = network.init(rng)
    state = np.vstack([theta, np.zeros_like(theta)])

    def train(solver: str, batch_size: int) -> Callable[[], object]:
        config = TrainConfig(network, batch_size=batch_size, solver=solver, max_iter=1)
        request = RoundRequest(config, state[: 1 + SOLVERS[solver].n_buffers])
        return lambda: train_locally(request, rows, 0, 0)

    X, H, D = (rng.random((batch, size), np.float32) for size in (784, 300, 10))
    W1, W2 = rng.random((784, 300), np.float32), rng.random((300, 10), np.float32)
    outs = [np.empty(s, np.float32) for s in [(batch, 300), (batch, 10), (batch, 300)]]
    G1, G2 = np.empty_like(W1), np.empty_like(W2)

    def products() -> None:
        for _ in range(n_rows // batch):
            np.matmul(X, W1, out=outs[0])
            np.matmul(H, W2, out=outs[1])
            np.matmul(D, W2.T, out=outs[2])
            np.matmul(H.T, D, out=G2)
            np.matmul(X.T, outs[2], out=G1)

    actions = [*(train(solver, batch) for solver in ("momentum", "sgd", "ngsgd")), products]
    in_turns(*actions, runs=2)
    ours, plain, natural, floor = in_turns(*actions, runs=25, clock=time.process_time)
    print(f"train_locally, B = {batch}: {ratio(ours, floor)} its five matrix products")
    print(f"train_locally by sgd, B = {batch}: {ratio(plain, floor)} its five matrix products")
    print(f"ngsgd, B = {batch}: {ratio(natural, ours)} momentum's step")


def memory() -> None:
    """A worker that trains on a shard four times its memory limit."""
    limit = 512 << 20
    n_rows = 4 * limit // (4 * 784)
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        some = rng.random((1000, 784), np.float32)
        with Path(folder, "x").open("wb") as x:
            for start in range(0, n_rows, 1000):
                x.write(some[: n_rows - start].tobytes())
        (rng.integers(10, size=n_rows) * 1.0).tofile(Path(folder, "y"))
        np.ones(n_rows).tofile(Path(folder, "w"))
        Path(folder, "counts").touch()
        command = [sys.executable, __file__, "--train-shard", folder, str(n_rows), str(limit)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(f"memory: a shard of {4 * limit >> 20} MiB: {answer.strip()}")


def train_shard(folder: str, n_rows: int, limit: int) -> None:
    """In a process of its own, which may use ``limit`` bytes of address space more than now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + limit
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    network = Network((784, 8, 10))
    theta = network.init(np.random.default_rng(0))
    request = RoundRequest(
        TrainConfig(network, max_iter=1), np.vstack([theta, np.zeros_like(theta)])
    )
    before = peak_memory()
    rows = ShardRows(Path(folder), n_rows, 784, 0)
    result = train_locally(request, rows, 0, 0)
    grown = peak_memory() - before
    print(
        f"trained on {result.n_rows} rows; grew by {grown >> 20} MiB, mapped rows included, "
        f"under a limit of {limit >> 20} MiB"
    )


def peak_memory() -> int:
    """Bytes. (getrusage would count what the parent process had when it started this one.)"""
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s]
    return int(line.split()[1]) << 10


FIGURES = {
    "demo": demo_job,
    "round": empty_round,
    "ingest": ingest,
    "step": step,
    "memory": memory,
    "sparse": lambda: sparse(session()),
    "sparse-large": lambda: sparse_large(session()),
}


def main() -> None:
    if sys.argv[1:2] == ["--train-shard"]:
        train_shard(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"some of {', '.join(FIGURES)}; default: all")
    chosen = parser.parse_args().figures or list(FIGURES)
    unknown = set(chosen) - set(FIGURES)
    if unknown:
        parser.error(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    for name in chosen:
        FIGURES[name]()


if __name__ == "__main__":
    main()
