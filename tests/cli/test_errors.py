"""Errors become the one line that helps."""

import pytest

from sparknn.cli.errors import one_line

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
        (KeyError("x"), "KeyError: 'x' (--verbose shows where)"),
        (Py4JJavaError(_JAVA), "No space left on device"),
        (AnalysisException("[PATH] There is none. SQLSTATE: 42K03\nmore"), "[PATH] There is none."),
    ],
)
def test_the_cause_in_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
