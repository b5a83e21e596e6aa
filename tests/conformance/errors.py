"""Check that errors state what arrived, what was expected, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructField, StructType

from conformance.subject import Subject
from sparknn.engine.sql import is_connect

_GROUP = "sparknn conformance: no job"


@contextmanager
def _fails(subject: Subject, *patterns: str, requests: bool = False) -> Iterator[None]:
    """The block raises ValueError, whose message has every pattern; before any job, if so asked."""
    if is_connect(subject.spark):  # which does not know its jobs
        with pytest.raises(ValueError, match=re.compile(patterns[0], re.DOTALL)) as raised:
            yield
        assert all(re.search(pattern, str(raised.value)) for pattern in patterns)
        return
    sc = subject.spark.sparkContext
    before = len(sc.statusTracker().getJobIdsForGroup(_GROUP))
    sc.setJobGroup(_GROUP, "")
    try:
        with pytest.raises(ValueError, match=re.compile(patterns[0], re.DOTALL)) as raised:
            yield
    finally:
        sc.setLocalProperty("spark.jobGroup.id", None)
        sc.setLocalProperty("spark.job.description", None)
    for pattern in patterns[1:]:
        assert re.search(pattern, str(raised.value)), f"{pattern!r} not in: {raised.value}"
    if not requests:
        ran = len(sc.statusTracker().getJobIdsForGroup(_GROUP)) - before
        assert ran == 0, f"{ran} jobs ran before the error: {raised.value}"


def check_wrong_params_are_reported_together(subject: Subject) -> None:
    cls = type(subject.estimator)
    wrong: dict[str, Any] = {"maxIter": 0, "activation": "rellu", "hiddenLayer": [3], "seed": "one"}
    patterns = (
        "maxIter = 0; expected a number >= 1",
        "activation = 'rellu'.* did you mean 'relu'",
        "hiddenLayer: there is no such param; did you mean 'hiddenLayers'",
        "seed = 'one'; expected a whole number",
    )
    with _fails(subject, *patterns):
        cls(**wrong)
    estimator = cls()
    with _fails(subject, *patterns):
        estimator.setParams(**wrong)
    assert not estimator._paramMap, "half of the params were set"
    with _fails(subject, "maxIter = 0"):
        subject.estimator.fit(subject.data, subject.params(maxIter=0))
    with _fails(subject, "maxIter = 0"):
        subject.estimator.fit(subject.data, [{}, subject.params(maxIter=0)])


def check_wrong_columns_fail_before_any_job(subject: Subject) -> None:
    features, label = subject.estimator.getFeaturesCol(), subject.estimator.getLabelCol()
    prediction = subject.estimator.getPredictionCol()
    frame = subject.data
    for data, patterns in [
        (frame.withColumnRenamed(features, "Feature"), (f"no column '{features}'", "Feature")),
        (frame.drop(label), (f"no column '{label}'", "Columns: ")),
        (frame.withColumn(features, F.lit("x")), ("has type string; expected a vector",)),
        (frame.withColumn(features, F.lit(1.0)), ("has type double;", "VectorAssembler")),
        (frame.withColumn(label, F.lit("x")), (f"'{label}' has type string; expected",)),
        (frame.withColumn(prediction, F.lit(0.0)), (f"'{prediction}' already exists",)),
        (frame.select(features, label, label), (f"There are 2 columns '{label}'",)),
    ]:
        with _fails(subject, *patterns):
            subject.estimator.fit(data)
    for params, pattern in [
        ({"weightCol": "absent"}, "no column 'absent'"),
        ({"weightCol": features}, f"'{features}' has type .*; expected numbers"),
        ({"validationIndicatorCol": "id"}, "'id' has type .*; expected booleans"),
        ({"patience": 2}, "needs validation rows"),
    ]:
        with _fails(subject, pattern):
            subject.estimator.fit(frame, subject.params(**params))
    for data, patterns in [
        (frame.drop(features), (f"no column '{features}'",)),
        (frame.withColumn(features, F.lit("x")), ("has type string; expected a vector",)),
        (frame.withColumn(prediction, F.lit(0.0)), (f"'{prediction}' already exists",)),
    ]:
        with _fails(subject, *patterns):
            subject.model.transform(data)


def check_rows_that_cannot_be_used_are_counted(subject: Subject) -> None:
    """One error reports all invalid rows, and why no row is usable."""
    d = subject.X.shape[1]
    good = Vectors.dense(np.ones(d))
    rows = [(good, 1.0, 1.0)] * 5 + [
        (None, 1.0, 1.0),
        (Vectors.dense([np.nan] * d), 1.0, 1.0),
        (Vectors.dense([np.inf] * d), 1.0, 1.0),
        (good, None, 1.0),
        (good, float("nan"), 1.0),
        (good, 0.0, -1.0),
        (good, 0.0, None),
    ]
    schema = StructType(
        [
            StructField("features", VectorUDT()),
            StructField("label", DoubleType()),
            StructField("w", DoubleType()),
        ]
    )
    frame = subject.named(subject.spark.createDataFrame(rows, schema))
    features, label = subject.estimator.getFeaturesCol(), subject.estimator.getLabelCol()
    weighted = subject.other(weightCol="w")
    patterns = [
        f"'{features}' is null in 1 of 12 rows",
        f"'{features}' is NaN.* in 2 of 12 rows",
        f"'{label}' is null in 1 of 12 rows",
        f"'{label}' is NaN or infinite in 1 of 12 rows",
        "'w' is negative in 1 of 12 rows",
        "'w' is null in 1 of 12 rows",
        "handleInvalid='skip'",
    ]
    with _fails(subject, *patterns, requests=True):
        weighted.fit(frame)
    with _fails(subject, "empty", requests=True):
        subject.estimator.fit(subject.data.limit(0))
