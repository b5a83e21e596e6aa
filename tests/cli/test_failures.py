"""Errors become the one line that helps."""

import pytest

from sparknn.cli.failures import one_line

_WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/x/worker.py", line 1, in main
    raise ValueError("deep")
ValueError: deep

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/x/other.py", line 2, in f
    g()
sparknn.engine.interface.DataError: Column 'x' has 3 NaN values.
"""

_JAVA = """An error occurred while calling o42.save.
: org.apache.spark.SparkException: Job aborted.
\tat org.apache.spark.Foo.bar(Foo.scala:1)
Caused by: java.io.IOException: No space left on device
\tat java.io.File.write(File.java)
"""


class Py4JJavaError(Exception):
    """Stands for py4j's."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("Column 'x'\nhas 3  nulls."), "Column 'x' has 3 nulls."),
        (FileNotFoundError(2, "No such file", "a"), "[Errno 2] No such file: 'a'"),
        (KeyError("x"), "KeyError: 'x' (--verbose shows where)"),
        (RuntimeError(_WORKER), "Column 'x' has 3 NaN values."),
        (Py4JJavaError(_JAVA), "No space left on device"),
        (
            Py4JJavaError("An error occurred.\n: java.lang.OutOfMemoryError\n\tat x"),
            "java.lang.OutOfMemoryError",
        ),
    ],
)
def test_the_cause_in_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_a_path_that_spark_cannot_find(spark) -> None:
    with pytest.raises(Exception, match="PATH_NOT_FOUND") as caught:
        spark.read.parquet("/nowhere/at/all")
    line = one_line(caught.value)
    assert line == "[PATH_NOT_FOUND] Path does not exist: file:/nowhere/at/all."


def test_an_error_in_a_python_worker(spark) -> None:
    def fail(batches):
        raise ValueError("no good")

    with pytest.raises(Exception, match="no good") as caught:
        spark.range(1).mapInArrow(fail, "id long").collect()
    assert one_line(caught.value) == "no good"
