"""Check that no RDDs, broadcasts, files, threads or job descriptions remain."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import leftovers, wait_for_tasks
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conformance.subject import Subject

_PROPERTIES = {
    "spark.job.description": "the user's own description",
    "spark.jobGroup.id": "the user's own group",
}
# Tests of another process may make them in the working directory at any moment.
_OF_OTHER_TESTS = {"spark-warehouse", "out", ".hypothesis"}


def traces(spark: SparkSession) -> dict[str, set[Any]]:
    """What a fit can leave in Spark, on this machine's disk and in this process."""
    sc = spark.sparkContext
    broadcasts = Path(sc._temp_dir).rglob("*")
    return {
        "persisted RDDs": set(sc._jsc.getPersistentRDDs().keySet()),
        "files of broadcasts": {str(path) for path in broadcasts if path.is_file()},
        "shards": set(leftovers(spark)),
        "files in the working directory": set(os.listdir()) - _OF_OTHER_TESTS,
        "threads": {thread for thread in threading.enumerate() if not _of_pyspark(thread)},
        "running jobs": set(sc.statusTracker().getActiveJobsIds()),
        "views": {view.name for view in spark.catalog.listTables()},
        "properties": {(name, sc.getLocalProperty(name)) for name in _PROPERTIES},
    }


def _of_pyspark(thread: threading.Thread) -> bool:
    """Threads of the pools that pyspark's tuning leaves to the garbage collector."""
    return "(_handle_" in thread.name or "(worker" in thread.name


@contextmanager
def nothing_left(subject: Subject) -> Iterator[None]:
    """Compare traces before and after the block, whatever happens in it."""
    sc = subject.spark.sparkContext
    mine = {name: sc.getLocalProperty(name) for name in _PROPERTIES}
    for name, value in _PROPERTIES.items():
        sc.setLocalProperty(name, value)
    try:
        before = traces(subject.spark)
        yield
        wait_for_tasks(subject.spark)
        after = traces(subject.spark)
        more = {what: found - before[what] for what, found in after.items()}
        assert not any(more.values()), f"left behind: {more}"
    finally:
        for name, value in mine.items():
            sc.setLocalProperty(name, value)  # type: ignore[arg-type]


def check_nothing_is_left_by_fit_and_transform(subject: Subject) -> None:
    with nothing_left(subject):
        models = subject.estimator.fit(subject.data, [{}, subject.params(maxIter=1)])
        models[0].transform(subject.data).collect()


def check_nothing_is_left_by_errors(subject: Subject) -> None:
    """In the columns, in the rows, in what the user runs upstream, and in the training itself."""
    label = subject.estimator.getLabelCol()
    vector = Vectors.dense(np.full(subject.X.shape[1], np.nan))
    invalid = subject.named(
        subject.spark.createDataFrame([(vector, 0.0)] * 2, ["features", "label"])
    )

    broken = subject.data.withColumn(
        label, F.raise_error(F.lit("the user's own mistake")).cast("double")
    )
    diverging = subject.params(
        solver="sgd", stepSize=1e300, maxChange=0.0, stepSizeSchedule="constant", maxIter=4
    )
    for data, params, message in [
        (subject.data.drop(label), {}, "no column"),
        (invalid, {}, "NaN"),
        (broken, {}, "the user's own mistake"),
        (subject.data, diverging, "diverged"),
    ]:
        with nothing_left(subject), pytest.raises(Exception, match=message):
            subject.estimator.fit(data, params)


def check_nothing_is_left_by_a_cancelled_job(subject: Subject) -> None:
    """Cancelled by the user's job group, which a fit leaves to the user."""
    sc = subject.spark.sparkContext
    endless = subject.other(maxIter=1, localEpochs=1_000_000)
    ended = threading.Event()

    def cancel() -> None:
        # Between two jobs there would be nothing to cancel, and no end.
        requests, since = set(), time.monotonic()
        while not ended.wait(0.05):
            running = set(sc.statusTracker().getActiveJobsIds())
            if running != requests:
                requests, since = running, time.monotonic()
            elif requests and time.monotonic() - since > 2:
                # The first round's, most likely; wherever it is, nothing must be left.
                sc.cancelJobGroup(_PROPERTIES["spark.jobGroup.id"])
                return

    thread = threading.Thread(target=cancel)
    with nothing_left(subject):
        thread.start()
        try:
            with pytest.raises(Exception, match=r"(?i)cancel"):
                endless.fit(subject.data)
        finally:
            ended.set()
            thread.join()
