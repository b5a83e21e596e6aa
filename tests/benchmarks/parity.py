"""Defaults against the defaults of others, on the small data sets that scikit-learn ships.

``make bench-parity`` prints the table of the README: means over 5 folds of the
accuracy, or of R2 for diabetes, of ``sparknn`` with nothing set, of Spark's
MultilayerPerceptronClassifier with the same hidden layer, and of scikit-learn's MLPClassifier and
MLPRegressor; the others on the data as they come, and after a StandardScaler (of targets too).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from pyspark.ml.classification import MultilayerPerceptronClassifier
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from sparknn import NeuralNetClassifier, NeuralNetRegressor

Array = np.ndarray[Any, Any]
Fold = tuple[Array, Array, Array, Array]

#: From a data set to what a fair loss is: points of accuracy, or of R2.
ALLOWED = {"digits": 0.01, "wine": 0.01, "breast_cancer": 0.01, "diabetes": 0.02}
HIDDEN = 100


def folds(name: str, seed: int, n_folds: int = 5) -> Iterator[Fold]:
    """Training and test rows, and their labels."""
    bunch = getattr(datasets, f"load_{name}")()
    X, y = bunch.data, bunch.target.astype(np.float64)
    for train, test in KFold(n_folds, shuffle=True, random_state=seed).split(X):
        yield X[train], y[train], X[test], y[test]


def score(name: str, predicted: Array, y: Array) -> float:
    """R2 for the regression, the share of right answers otherwise."""
    if name == "diabetes":
        return 1 - float(np.square(predicted - y).sum() / np.square(y - y.mean()).sum())
    return float((predicted == y).mean())


def table(spark: SparkSession, X: Array, y: Array) -> DataFrame:
    """Rows as a DataFrame of two partitions."""
    rows = [(Vectors.dense(x), label) for x, label in zip(X, y.tolist(), strict=True)]
    return spark.createDataFrame(rows, ["features", "label"]).coalesce(2)


def of_sparknn(spark: SparkSession, name: str, fold: Fold, seed: int) -> float:
    """Nothing set but the seed."""
    X, y, X_test, y_test = fold
    kind = NeuralNetRegressor if name == "diabetes" else NeuralNetClassifier
    model = kind(seed=seed).fit(table(spark, X, y))
    return score(name, model.toLocal().predict(X_test), y_test)


def of_spark(spark: SparkSession, name: str, fold: Fold, seed: int) -> float:
    """Spark's own; it has no regression, and no scaling."""
    if name == "diabetes":
        return float("nan")
    X, y, X_test, y_test = fold
    layers = [X.shape[1], HIDDEN, int(y.max()) + 1]
    model = MultilayerPerceptronClassifier(layers=layers, seed=seed).fit(table(spark, X, y))
    rows = model.transform(table(spark, X_test, y_test)).select("prediction", "label").collect()
    predicted, labels = np.array(rows).T
    return score(name, predicted, labels)


def of_scikit(spark: SparkSession, name: str, fold: Fold, seed: int) -> float:
    """scikit-learn's; it has no scaling either."""
    model = MLPRegressor if name == "diabetes" else MLPClassifier
    return _of_scikit(model(random_state=seed), name, fold)


def of_scikit_scaled(spark: SparkSession, name: str, fold: Fold, seed: int) -> float:
    """The same with features, and targets, of mean 0 and deviation 1."""
    if name != "diabetes":
        return of_scikit(spark, name, scaled(fold), seed)
    model = TransformedTargetRegressor(
        MLPRegressor(random_state=seed), transformer=StandardScaler()
    )
    return _of_scikit(model, name, scaled(fold))


def _of_scikit(model: Any, name: str, fold: Fold) -> float:
    X, y, X_test, y_test = fold
    with warnings.catch_warnings():
        # 200 rounds, its default, are not enough for some of the data sets.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return score(name, model.fit(X, y).predict(X_test), y_test)


def scaled(fold: Fold) -> Fold:
    """A fold with features of mean 0 and deviation 1."""
    X, y, X_test, y_test = fold
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), y, scaler.transform(X_test), y_test


Contestant = Callable[[SparkSession, str, Fold, int], float]

CONTESTANTS: dict[str, Contestant] = {
    "sparknn": of_sparknn,
    "Spark": of_spark,
    "Spark, scaled": lambda spark, name, fold, seed: of_spark(spark, name, scaled(fold), seed),
    "scikit-learn": of_scikit,
    "scikit-learn, scaled": of_scikit_scaled,
}


def compare(spark: SparkSession, name: str, seeds: int) -> dict[str, list[float]]:
    """The 5-fold means of every contestant, one a seed."""
    means: dict[str, list[float]] = {contestant: [] for contestant in CONTESTANTS}
    for seed in range(seeds):
        drawn = list(folds(name, seed))
        for contestant, of in CONTESTANTS.items():
            scores = [of(spark, name, fold, seed) for fold in drawn]
            means[contestant].append(statistics.fmean(scores))
    return means


def cell(values: list[float]) -> str:
    """The mean in hundredths, with the least and the largest if there are several."""
    if np.isnan(values[0]):
        return "none"
    mean = f"{100 * statistics.fmean(values):.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(ALLOWED)}; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="5-fold splits of each data set")
    asked = parser.parse_args()
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("sparknn bench: parity")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    behind = []
    print(f"| 5-fold mean | {' | '.join(CONTESTANTS)} |")
    print("| --- " * (len(CONTESTANTS) + 1) + "|", flush=True)
    for name in asked.names or ALLOWED:
        means = compare(spark, name, asked.seeds)
        what = "R2" if name == "diabetes" else "accuracy"
        cells = [cell(values) for values in means.values()]
        print(f"| {name}, {what} | {' | '.join(cells)} |", flush=True)
        averages = [statistics.fmean(values) for values in means.values()]
        ours, best = averages[0], np.nanmax(averages[1:])
        if ours < best - ALLOWED[name]:
            behind.append(f"{name}: {100 * ours:.1f} against {100 * best:.1f}")
    spark.stop()
    if behind:
        sys.exit("Too far behind: " + "; ".join(behind))


if __name__ == "__main__":
    main()
