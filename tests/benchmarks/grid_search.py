"""A grid search with one pass over the rows, against fits one after the other.

``make bench-search``: 8 parameter maps, 3 folds of 10,000 rows of MNIST, with
Spark's own CrossValidator; once as it is, and once with ``fitMultiple`` of pyspark's base class.
"""

from __future__ import annotations

import os

# One thread, as in Spark's Python workers; before numpy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.ml import Estimator
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from timing import ratio, spread

from sparknn import NeuralNetClassifier

MNIST = Path(__file__).parents[2] / "notebooks/data/mnist/train.parquet"


class OneByOne(NeuralNetClassifier):
    """The same estimator, with fitMultiple of the base class: one fit per map."""

    fitMultiple = Estimator.fitMultiple


def rows(spark: SparkSession, n_rows: int) -> DataFrame:
    """The first rows of MNIST, cached."""
    vector = array_to_vector(F.col("pixels").cast("array<double>")).alias("features")
    first = spark.read.parquet(str(MNIST)).limit(n_rows).repartition(2)
    df = first.select(F.col("label").cast("double"), vector).cache()
    df.count()
    return df


def search(kind: type[NeuralNetClassifier], df: DataFrame, rounds: int) -> CrossValidatorModel:
    """The grid search, every model kept."""
    # The same uid, so that Spark draws the same folds and maps fit both.
    net = kind(maxIter=rounds, numWorkers=2, seed=1)
    grid = (
        ParamGridBuilder()
        .addGrid(net.hiddenLayers, [[32], [64]])
        .addGrid(net.stepSize, [0.05, 0.15])
        .addGrid(net.regParam, [0.0, 1e-4])
        .build()
    )
    validator = CrossValidator(
        estimator=net,
        estimatorParamMaps=grid,
        evaluator=MulticlassClassificationEvaluator(metricName="accuracy"),
        numFolds=3,
        seed=7,
        collectSubModels=True,
    )
    return validator.fit(df)


def named(paramMap: dict[Any, Any]) -> dict[str, Any]:
    """A parameter map by the params' names."""
    return {param.name: value for param, value in paramMap.items()}


def where_time_went(model: CrossValidatorModel, total: float) -> str:
    """Seconds of a search in ingest and rounds, by the models' own summaries."""
    fits = {
        (fitted.summary.seconds, fitted.summary.ingest_s): fitted.summary
        for fold in [*model.subModels, [model.bestModel]]
        for fitted in fold
    }
    ingest = sum(summary.ingest_s for summary in fits.values())
    rounds = sum(summary.history["seconds"].sum() for summary in fits.values())
    other = sum(summary.seconds for summary in fits.values()) - ingest - rounds
    rest = total - ingest - rounds - other
    return (
        f"{len(fits)} ingests {ingest:.1f} s, rounds {rounds:.1f} s, moments and clean-up "
        f"{other:.1f} s, splits and evaluations {rest:.1f} s"
    )


def cpu_seconds() -> float:
    """Of this process, its JVM and Spark's Python workers; by Linux's /proc."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything.
            after = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has ended.
        stats[int(path.parent.name)] = int(after[1]), sum(map(int, after[11:15]))
    family, more = {os.getpid()}, True
    while more:
        children = {pid for pid, (parent, _) in stats.items() if parent in family}
        more = not children <= family
        family |= children
    return sum(stats[pid][1] for pid in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20, help="maxIter of every map")
    parser.add_argument("--runs", type=int, default=3, help="times that both are run, in turns")
    asked = parser.parse_args()
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("sparknn bench: grid search")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    df = rows(spark, asked.rows)
    # Spark's Python workers are started, and its code compiled, before the clock runs.
    search(NeuralNetClassifier, df, asked.rounds)

    seconds: dict[type, list[float]] = {NeuralNetClassifier: [], OneByOne: []}
    cpu: dict[type, list[float]] = {kind: [] for kind in seconds}
    found: dict[type, CrossValidatorModel] = {}
    for _ in range(asked.runs):
        for kind, mine in seconds.items():
            started, busy = time.perf_counter(), cpu_seconds()
            found[kind] = search(kind, df, asked.rounds)
            mine.append(time.perf_counter() - started)
            cpu[kind].append(cpu_seconds() - busy)

    together, separate = found[NeuralNetClassifier], found[OneByOne]
    print(f"8 maps, 3 folds, {asked.rows} rows of MNIST, {asked.rounds} rounds, 2 workers")
    print(f"in one pass: {spread(seconds[NeuralNetClassifier])}; one by one: ", end="")
    print(spread(seconds[OneByOne]))
    print(f"one by one takes {ratio(seconds[OneByOne], seconds[NeuralNetClassifier])} as long")
    print(f"and {ratio(cpu[OneByOne], cpu[NeuralNetClassifier])} the processor's time, ", end="")
    print(f"{spread(cpu[OneByOne])} against {spread(cpu[NeuralNetClassifier])}")
    print(f"in one pass: {where_time_went(together, seconds[NeuralNetClassifier][-1])}")
    print(f"one by one: {where_time_went(separate, seconds[OneByOne][-1])}")
    maps = [named(paramMap) for paramMap in together.getEstimatorParamMaps()]
    best = [max(range(8), key=model.avgMetrics.__getitem__) for model in (together, separate)]
    print(f"best: {maps[best[0]]} with {together.avgMetrics[best[0]]:.4f}; one by one: ", end="")
    print("the same" if best[0] == best[1] else str(maps[best[1]]))
    pairs = [
        (one.theta.tobytes(), other.theta.tobytes())
        for ours, theirs in zip(together.subModels, separate.subModels, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    equal = sum(one == other for one, other in pairs)
    print(f"models equal to the byte: {equal} of {len(pairs)}")
    spark.stop()
    if best[0] != best[1] or equal < len(pairs):
        sys.exit("The two searches differ.")


if __name__ == "__main__":
    main()
