"""Errors become the one line that helps."""

import pytest

from sparknn.cli.errors import UsageError, one_line, raise_mistakes

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


class AnalysisException(Exception):
    """Stands for pyspark's."""

    __module__ = "pyspark.errors"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("Column 'x'\nhas 3  nulls."), "Column 'x' has 3 nulls."),
        (FileNotFoundError(2, "No such file", "a"), "[Errno 2] No such file: 'a'"),
        (KeyError("x"), "KeyError: 'x' (--verbose shows where)"),
        (RuntimeError(_WORKER), "Column 'x' has 3 NaN values."),
        (Py4JJavaError(_JAVA), "No space left on device"),
        (AnalysisException("[PATH] There is none. SQLSTATE: 42K03\nmore"), "[PATH] There is none."),
        (
            Py4JJavaError("An error occurred.\n: java.lang.OutOfMemoryError\n\tat x"),
            "java.lang.OutOfMemoryError",
        ),
    ],
)
def test_the_cause_in_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_mistakes_are_named_together() -> None:
    raise_mistakes("job.toml", ["", ""])
    with pytest.raises(UsageError, match=r"^job\.toml: a: wrong\.$"):
        raise_mistakes("job.toml", ["", "a: wrong."])
    with pytest.raises(UsageError, match=r"^job\.toml: 2 mistakes\n  a: wrong\.\n  b: wrong\.$"):
        raise_mistakes("job.toml", ["a: wrong.", "b: wrong."])
