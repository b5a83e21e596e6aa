"""With nothing set, as good as scikit-learn's networks and Spark's on real data, nearly.

A glimpse of ``tests/benchmarks/parity.py``, which compares all data sets on 5 folds.
"""

from typing import Any

import numpy as np
import pytest
from pyspark.ml.classification import MultilayerPerceptronClassifier
from pyspark.sql import DataFrame, SparkSession
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from tables import accuracy, table

from sparknn import NeuralNetClassifier, NeuralNetRegressor


def split(load: Any) -> tuple[Any, ...]:
    X, y = load(return_X_y=True)
    return tuple(train_test_split(X, y.astype(float), test_size=0.25, random_state=1))


@pytest.fixture(scope="module")
def digits() -> tuple[Any, ...]:
    return split(load_digits)


@pytest.fixture(scope="module")
def ours(spark: SparkSession, digits: tuple[Any, ...]) -> float:
    """Accuracy on the digits, with nothing set; two workers, as the tests' session has slots."""
    X, X_test, y, y_test = digits
    local = NeuralNetClassifier().fit(table(spark, X, y)).toLocal()
    return float((local.predict(X_test) == y_test).mean())


def test_digits_against_scikit_learn(digits: tuple[Any, ...], ours: float) -> None:
    X, X_test, y, y_test = digits
    scaler = StandardScaler().fit(X)
    theirs = MLPClassifier(random_state=0).fit(scaler.transform(X), y)
    assert ours > theirs.score(scaler.transform(X_test), y_test) - 0.015


def test_digits_against_spark(spark: SparkSession, digits: tuple[Any, ...], ours: float) -> None:
    X, X_test, y, y_test = digits
    theirs = MultilayerPerceptronClassifier(layers=[64, 100, 10], maxIter=40, seed=0)
    test: DataFrame = table(spark, X_test, y_test)
    assert ours > accuracy(theirs.fit(table(spark, X, y)).transform(test)) - 0.015


# So few rounds are not enough, and neither is scikit-learn's default of 200.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_diabetes(spark: SparkSession) -> None:
    """Close to a straight line, which is hard to beat here; Spark has no network for this.

    scikit-learn's, with nothing set, is worse than the mean of the labels.
    """
    X, X_test, y, y_test = split(load_diabetes)
    local = NeuralNetRegressor().fit(table(spark, X, y)).toLocal()
    error = np.square(local.predict(X_test) - y_test).sum()
    r2 = 1 - float(error / np.square(y_test - y_test.mean()).sum())
    assert r2 > LinearRegression().fit(X, y).score(X_test, y_test) - 0.1
    theirs = MLPRegressor(random_state=0, max_iter=30).fit(X, y)
    assert r2 > theirs.score(X_test, y_test)
