"""Figures of wide sparse inputs, hashed text: part of ``make bench``."""

from __future__ import annotations

import pickle
import resource
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.ml.feature import HashingTF
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from timing import in_turns, ratio, spread

from sparknn import NeuralNetClassifier
from sparknn.core.training.worker_round import run_worker
from sparknn.engine import open_engine
from sparknn.engine.interface import DataSpec

# A language's words by how common they are (Zipf), and how many different ones a text has.
_VOCABULARY, _EXPONENT, _WORDS = 50_000, 1.05, 80
N_ROWS = 100_000
WIDE, NARROW = 1 << 18, 1 << 12


def _text_maker() -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """A local function: workers cannot import this file, and get it by value."""

    def texts(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """A text of 80 different words for each id, and which of 4 topics it is of."""
        cdf = np.cumsum(np.arange(1, _VOCABULARY + 1.0) ** -_EXPONENT)
        for batch in batches:
            rng = np.random.default_rng(int(batch["id"].iloc[0]))
            topics = rng.integers(4, size=len(batch))
            drawn = np.searchsorted(cdf, rng.random((len(batch), 4 * _WORDS)) * cdf[-1])
            # A sixth of the words is of the topic's own kind.
            own = rng.random(drawn.shape) < 1 / 6
            drawn = np.where(own, drawn - drawn % 4 + topics[:, None], drawn)
            words = [list(dict.fromkeys(row.tolist()))[:_WORDS] for row in drawn]
            words = [[f"w{word}" for word in text] for text in words]
            yield pd.DataFrame({"label": topics.astype(float), "words": words})

    return texts


@cache
def hashed(spark: SparkSession, n_features: int, n_rows: int = N_ROWS) -> DataFrame:
    schema = "label double, words array<string>"
    raw = spark.range(n_rows, numPartitions=4).mapInPandas(_text_maker(), schema)
    hashing = HashingTF(inputCol="words", outputCol="features", numFeatures=n_features)
    df = hashing.transform(raw).select("label", "features").cache()
    df.count()
    return df


def fitted(df: DataFrame, hidden: int = 32, rounds: int = 4) -> Any:
    estimator = NeuralNetClassifier(
        hiddenLayers=[hidden], numWorkers=2, maxIter=rounds, seed=1, localEpochs=1, batchSize=64
    )
    return estimator.fit(df)


def sparse(spark: SparkSession) -> None:
    """Rounds, predictions and messages of 2^18 columns, against 2^12 and against scikit-learn."""
    models = {width: fitted(hashed(spark, width)) for width in (WIDE, NARROW)}
    rounds = {width: [] for width in models}
    for _ in range(2):
        for width in models:
            models[width] = fitted(hashed(spark, width))
            rounds[width] += models[width].summary.history["seconds"].tolist()[1:]
    wide, narrow = rounds[WIDE], rounds[NARROW]
    print(f"sparse: {N_ROWS:,} rows x {_WORDS} at 2^18, one epoch: {spread(wide)}")
    print(f"sparse: the same at 2^12: {spread(narrow)}; 2^18 takes {ratio(wide, narrow)}")

    def predict(width: int) -> None:
        predicted = models[width].transform(hashed(spark, width))
        predicted.agg(F.avg(F.col("prediction"))).head()

    actions = [lambda: predict(WIDE), lambda: predict(NARROW)]
    in_turns(*actions, runs=1)
    wide, narrow = in_turns(*actions, runs=5)
    print(f"sparse: transform at 2^18: {spread(wide)}, {ratio(wide, narrow)} that at 2^12")

    for n_rows in (N_ROWS // 10, N_ROWS):
        _message(spark, n_rows)
    _against_sklearn(spark, rounds[WIDE])


def _message(spark: SparkSession, n_rows: int) -> None:
    df = hashed(spark, WIDE).limit(n_rows)
    columns = DataSpec("features", "label", classifies=True, n_workers=2, seed=1)
    with open_engine(df, columns) as engine:
        handle = engine._handles.collect()[0]
        rows, validation = handle.rows(engine.info.n_features, engine.info.n_targets)
        request = _request(engine.info.n_features)
        totals = run_worker([request], rows, validation, 0, 0, 2.0**17)
    n_touched, whole = len(totals[0].rows.columns), 4 * request.config.network.n_params
    print(
        f"sparse: a worker of {n_rows // 2:,} rows touches {n_touched:,} of {WIDE:,} columns and "
        f"sends {len(pickle.dumps(totals)) / 1e6:.1f} MB; the network has {whole / 1e6:.1f} MB"
    )


def _request(n_features: int) -> Any:
    from sparknn.core.config import AveragingConfig, TrainConfig
    from sparknn.core.nn.network import Network
    from sparknn.core.training.fit_state import FitState

    config = TrainConfig(Network((n_features, 32, 4)), n_sparse=n_features, batch_size=64)
    return FitState(config, AveragingConfig(), 2).request()


def _against_sklearn(spark: SparkSession, ours: list[float]) -> None:
    from scipy.sparse import csr_matrix
    from sklearn.neural_network import MLPClassifier

    n = N_ROWS // 10
    rows = hashed(spark, WIDE).limit(n).collect()
    starts = np.cumsum([0, *(len(row.features.indices) for row in rows)])
    values = np.concatenate([row.features.values for row in rows]).astype(np.float32)
    columns = np.concatenate([row.features.indices for row in rows])
    X, y = csr_matrix((values, columns, starts), (n, WIDE)), np.array([row.label for row in rows])
    net = MLPClassifier([32], batch_size=64, random_state=1)
    net.partial_fit(X[:64], y[:64], classes=np.arange(4))
    started = time.perf_counter()
    net.partial_fit(X, y)
    per_row = (time.perf_counter() - started) / n
    times = per_row * N_ROWS / float(np.median(ours))
    print(f"sparse: scikit-learn takes {1e6 * per_row:.0f} us per row, {times:.0f} times as long")


def sparse_large(spark: SparkSession) -> None:
    """2^20 columns, hidden 64: 67 million parameters."""
    model = fitted(hashed(spark, 1 << 20), hidden=64, rounds=2)
    seconds = model.summary.history["seconds"].tolist()
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(
        f"sparse, 2^20 x 64: {len(model.theta) / 1e6:.1f} million parameters, "
        f"rounds of {', '.join(f'{s:.1f}' for s in seconds)} s; at most {driver / 1e9:.1f} GB in "
        f"the driver's Python, {_largest_worker() / 1e9:.1f} GB in a worker's"
    )


def _largest_worker() -> int:
    """Most memory that a Python worker of Spark's has had, in bytes."""
    found = [0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"pyspark.daemon" in (folder / "cmdline").read_bytes():
                lines = (folder / "status").read_text().splitlines()
                found += [int(line.split()[1]) << 10 for line in lines if "VmHWM" in line]
        except OSError:
            continue
    return max(found)
