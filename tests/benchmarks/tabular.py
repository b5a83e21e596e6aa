"""Real tables: defaults against those of boosted trees.

``make bench-tabular`` prints, for every table of a folder, accuracy (or R2) and log loss of
``sparknn`` with nothing set, of XGBoost and of scikit-learn's HistGradientBoosting, on the same
splits. ``sparknn`` gets its rows from StringIndexer and VectorAssembler, the others one-hot
categories.

A folder has ``NAME.parquet``, with a column ``label``, and ``NAME.json``: ``task`` and the names
of ``numeric`` and ``categorical`` columns. XGBoost comes with ``pip install '.[bench]'``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pyspark.ml import Pipeline
from pyspark.ml.feature import StringIndexer, VectorAssembler
from pyspark.sql import SparkSession
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, r2_score
from sklearn.preprocessing import OneHotEncoder

from sparknn import NeuralNetClassifier, NeuralNetRegressor

Array = np.ndarray[Any, Any]
FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "tabular"
TRAINING_SHARE = 0.75


@dataclass(frozen=True)
class Table:
    """A table, its columns, and whether its label is a number to predict."""

    name: str
    rows: pd.DataFrame
    numeric: list[str]
    categorical: list[str]
    regression: bool

    @classmethod
    def read(cls, folder: Path, name: str) -> Table:
        about = json.loads((folder / f"{name}.json").read_text())
        rows = pd.read_parquet(folder / f"{name}.parquet")
        numeric, categorical = about["numeric"], about["categorical"]
        regression = about["task"] == "regression"
        rows[numeric] = rows[numeric].astype(float)
        rows[categorical] = rows[categorical].astype(str)
        if not regression:
            rows["label"] = pd.factorize(rows["label"], sort=True)[0]
        rows["label"] = rows["label"].astype(float)
        return cls(name, rows[[*numeric, *categorical, "label"]], numeric, categorical, regression)

    def split(self, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Training and test rows."""
        order = np.random.default_rng(seed).permutation(len(self.rows))
        n_training = round(TRAINING_SHARE * len(order))
        return self.rows.iloc[order[:n_training]], self.rows.iloc[order[n_training:]]


class Score(NamedTuple):
    """Accuracy or R2 in percent, log loss (NaN for a regression), and seconds of the fit."""

    quality: float
    log_loss: float
    seconds: float


def score(table: Table, y: Array, predicted: Array, seconds: float) -> Score:
    """Score numbers, or probabilities of classes, shape (n, k)."""
    if table.regression:
        return Score(100 * float(r2_score(y, predicted)), float("nan"), seconds)
    predicted = predicted / predicted.sum(axis=1, keepdims=True)
    accuracy = 100 * float((predicted.argmax(axis=1) == y).mean())
    return Score(accuracy, float(log_loss(y, predicted, labels=range(predicted.shape[1]))), seconds)


def of_sparknn(spark: SparkSession, table: Table, seed: int) -> Score:
    """Nothing set; numbers that are missing in training rows are kept."""
    training, test = table.split(seed)
    indexed = [f"{name} indexed" for name in table.categorical]
    estimator = NeuralNetRegressor() if table.regression else NeuralNetClassifier()
    if training[table.numeric].isna().any(axis=None):
        estimator.setHandleInvalid("keep")
    inputs = [*table.numeric, *indexed]
    stages: list[Any] = [
        VectorAssembler(inputCols=inputs, outputCol="features", handleInvalid="keep"),
        estimator,
    ]
    if indexed:
        indexer = StringIndexer(
            inputCols=table.categorical, outputCols=indexed, handleInvalid="keep"
        )
        stages.insert(0, indexer)
    rows = spark.createDataFrame(training).coalesce(2).cache()
    rows.count()
    started = time.perf_counter()
    model = Pipeline(stages=stages).fit(rows)
    seconds = time.perf_counter() - started
    rows.unpersist()
    column = "prediction" if table.regression else "probability"
    found = model.transform(spark.createDataFrame(test)).select("label", column).collect()
    y = np.array([row.label for row in found])
    predicted = np.array(
        [row.prediction if table.regression else row.probability.toArray() for row in found]
    )
    return score(table, y, predicted, seconds)


def of_trees(make: Callable[[bool], Any], table: Table, seed: int) -> Score:
    """An estimator of scikit-learn's kind on numbers and one-hot categories."""
    training, test = table.split(seed)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    encoder.fit(training[table.categorical])
    X, X_test = (
        np.hstack([part[table.numeric], encoder.transform(part[table.categorical])])
        for part in (training, test)
    )
    y, y_test = (part["label"].to_numpy() for part in (training, test))
    started = time.perf_counter()
    model = make(table.regression).fit(X, y)
    seconds = time.perf_counter() - started
    predicted = model.predict(X_test) if table.regression else model.predict_proba(X_test)
    return score(table, y_test, np.asarray(predicted, dtype=np.float64), seconds)


def xgboost(regression: bool) -> Any:
    from xgboost import XGBClassifier, XGBRegressor

    return (XGBRegressor if regression else XGBClassifier)(n_jobs=2)


def hist_gradient_boosting(regression: bool) -> Any:
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    return kind(random_state=0)


def mean(scores: Sequence[Score], name: str) -> float:
    return fmean(getattr(each, name) for each in scores)


def cell(scores: Sequence[Score]) -> str:
    """Mean accuracy or R2, and log loss."""
    loss = mean(scores, "log_loss")
    quality = f"{mean(scores, 'quality'):.1f}"
    return quality if np.isnan(loss) else f"{quality} ({loss:.3f})"


def compare(
    spark: SparkSession, table: Table, splits: int, rivals: dict[str, Callable[[bool], Any]]
) -> tuple[float, float]:
    """Print a table's row; return the gap to the first rival and the ratio of the log losses."""
    ours = [of_sparknn(spark, table, seed) for seed in range(splits)]
    theirs = {
        name: [of_trees(make, table, seed) for seed in range(splits)]
        for name, make in rivals.items()
    }
    gap = ratio = float("nan")
    if theirs:
        first = next(iter(theirs.values()))
        gap = mean(ours, "quality") - mean(first, "quality")
        ratio = fmean(a.log_loss / b.log_loss for a, b in zip(ours, first, strict=True))
    everybody = [ours, *theirs.values()]
    cells = [
        f"{table.name}, {'R2' if table.regression else 'accuracy'}",
        f"{len(table.rows):,}",
        *map(cell, everybody),
        f"{gap:+.1f}",
        "" if np.isnan(ratio) else f"{ratio:.2f}",
        " / ".join(f"{mean(scores, 'seconds'):.1f}" for scores in everybody),
        f"{os.getloadavg()[0]:.1f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    return gap, ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="tables of the folder; default: all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument("--splits", type=int, default=3)
    asked = parser.parse_args()
    known = sorted(path.stem for path in asked.folder.glob("*.parquet"))
    if not known:
        print(f"Skipped: there are no tables in {asked.folder}. Name a folder with --folder.")
        return
    if unknown := sorted(set(asked.names) - set(known)):
        sys.exit(f"No tables {', '.join(unknown)} in {asked.folder}; it has {', '.join(known)}.")
    rivals: dict[str, Callable[[bool], Any]] = {"HistGradientBoosting": hist_gradient_boosting}
    if find_spec("xgboost"):
        rivals = {"XGBoost": xgboost, **rivals}
    else:
        print(
            "XGBoost is not installed: gaps are to HistGradientBoosting. (pip install '.[bench]')"
        )
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("sparknn bench: tabular")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "2g")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    columns = [
        f"mean of {asked.splits} splits, % (log loss)",
        "rows",
        "sparknn",
        *rivals,
        "gap",
        "ratio of log losses",
        "seconds of the fits",
        "load average",
    ]
    print(f"| {' | '.join(columns)} |")
    print("| --- " * len(columns) + "|", flush=True)
    found = [
        compare(spark, Table.read(asked.folder, name), asked.splits, rivals)
        for name in asked.names or known
    ]
    gaps, ratios = np.array(found).T
    ratios = ratios[~np.isnan(ratios)]
    print(f"Mean gap {gaps.mean():+.2f}, worst {gaps.min():+.2f}", end="")
    print(f"; mean ratio of log losses {ratios.mean():.2f}." if len(ratios) else ".")
    spark.stop()


if __name__ == "__main__":
    main()
