"""Errors of executors' environments say what to set; other errors pass unchanged."""

import pytest
from pyspark.sql import SparkSession

from sparknn.engine.worker_errors import (
    ShardWriteError,
    WorkerEnvironmentError,
    translate_worker_errors,
)

HINTS = {
    "ModuleNotFoundError: No module named 'numpy'": "cannot import numpy.*PYSPARK_PYTHON",
    "No module named numpy": "cannot import numpy,.*PYSPARK_PYTHON",
    "No module named 'pyarrow'": "cannot import pyarrow,.*spark.pyspark.python",
    "[PACKAGE_NOT_INSTALLED] PyArrow >= 18.0.0 must be installed; however, it was not found.": (
        "cannot import PyArrow,.*PYSPARK_PYTHON"
    ),
    "No module named 'sparknn.engine'": "cannot import sparknn.*--py-files",
    'java.io.IOException: Cannot run program "/no/python": error=2, No such file or directory': (
        "/no/python does not exist where they run. Set PYSPARK_PYTHON"
    ),
    'java.io.IOException: Cannot run program "/my/python": error=13, Permission denied': (
        "/my/python may not be executed where they run. Set PYSPARK_PYTHON"
    ),
    "java.io.IOException: No space left on device": "is full.*spark.local.dir",
    # Of Java 21.
    'Cannot run program "/my/python": Exec failed, error: 13 (Permission denied)': (
        "/my/python may not be executed where they run. Set PYSPARK_PYTHON"
    ),
}


@pytest.mark.parametrize("message", HINTS)
def test_what_sparknn_needs_is_explained(message: str) -> None:
    original = RuntimeError(f"Job aborted due to stage failure: {message}\n  at java.lang.Thread")
    with (
        pytest.raises(WorkerEnvironmentError, match=HINTS[message]) as caught,
        translate_worker_errors(),
    ):
        raise original
    assert caught.value.__cause__ is original


@pytest.mark.parametrize(
    "message",
    ["No module named 'cv2'", "No module named 'numpyro'", "No module named 'numpy.core.old'"],
)
def test_other_errors_pass(message: str) -> None:
    """An upstream function of the user's may lack modules that sparknn knows nothing of."""
    with pytest.raises(RuntimeError) as caught, translate_worker_errors():
        raise RuntimeError(message)
    assert not isinstance(caught.value, WorkerEnvironmentError)


def test_a_full_disk_is_recognised_by_its_error_class(spark: SparkSession) -> None:
    def fail(error: Exception) -> None:
        raise error from OSError(28, "No space left on device")

    # Pickled by value, as workers cannot import this file.
    fail.__module__ = "__main__"
    full = spark.sparkContext.parallelize([ShardWriteError("no room on /disk")], 1)
    with pytest.raises(WorkerEnvironmentError) as caught, translate_worker_errors():
        full.map(fail).collect()
    assert str(caught.value) == "no room on /disk"
    other = spark.sparkContext.parallelize([RuntimeError("ShardWriteError: no room")], 1)
    with pytest.raises(Exception, match="no room") as raised, translate_worker_errors():
        other.map(fail).collect()
    assert not isinstance(raised.value, WorkerEnvironmentError)
