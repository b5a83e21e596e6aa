"""Translate errors of Spark and its Python workers into what to do about them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sparknn.engine.interface import DataError

# Of errors that are not ours, Python and Java give no more than a message. Only the modules that
# sparknn needs are looked for: code of the user's may lack others, and Spark's message then stands.
_NO_MODULE = re.compile(
    r"No module named '?(numpy|pandas|pyarrow|sparknn(?:\.[\w.]+)?)(?![\w.])"
    r"|(PyArrow|Pandas) >= .{0,60}must be installed"
)
# Of Linux's error codes, 13 is EACCES.
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"(.*error(?:=|: )13\b)?')
# ENOSPC and EDQUOT in Java, that is, in Spark's own files.
_NO_SPACE = re.compile(
    r"(?:IOException|FileSystemException): .{0,200}?(No space left on device|Disk quota exceeded)"
)

_TRACEBACK = "Traceback (most recent call last):"


class WorkerEnvironmentError(RuntimeError):
    """Executors lack what sparknn needs: a Python, a package in it, or room on a disk."""


class ShardWriteError(RuntimeError):
    """A Python worker cannot write its shard to the executor's disk."""


class ShardChangedError(RuntimeError):
    """A shard that was written again holds other rows, or in another order."""


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """Turn errors of Spark that executors' environments or changing rows cause into ours.

    Raises
    ------
    WorkerEnvironmentError
        With a message that says what to set.
    DataError
        If rows that were read again are other rows.
    """
    try:
        yield
    except Exception as error:
        if _is_raised(ShardChangedError, str(error)):
            raise changed_rows() from error
        remote = type(error).__module__ == "pyspark.errors.exceptions.connect"
        message = _explain(str(error), remote)
        if message is None:
            raise
        raise WorkerEnvironmentError(message) from error


def _explain(text: str, remote: bool) -> str | None:
    """Return what to do about a Spark error; None if it has another cause.

    Over Spark Connect (``remote``), workers run the server's Python.
    """
    if _is_raised(ShardWriteError, text):
        return end_of_traceback(text).partition(": ")[2]
    if found := _NO_PYTHON.search(text):
        fault = "may not be executed" if found[2] else "does not exist"
        return (
            f"Spark's Python workers cannot start: {found[1]} {fault} where they run. Set "
            "PYSPARK_PYTHON (or spark.pyspark.python) to a Python that every node can run, or "
            "send one with the job (--archives)."
        )
    if found := _NO_MODULE.search(text):
        module = (found[1] or found[2]).split(".")[0]
        packages = "" if module == "sparknn" else ", which sparknn needs on every node"
        if remote:
            message = (
                f"The Spark server's Python workers cannot import {module}{packages}. Install "
                "numpy, pandas, pyarrow and sparknn there (in a Databricks notebook: %pip install)."
            )
            if module == "sparknn":
                message += (
                    " Or send sparknn with the session: `make zip`, then "
                    'spark.addArtifacts("dist/sparknn-VERSION.zip", pyfile=True).'
                )
            return message
        message = (
            f"Spark's Python workers cannot import {module}{packages}. They may run another Python "
            f"than this one, {sys.executable}. Set PYSPARK_PYTHON (or spark.pyspark.python) to one "
            "that has numpy, pandas, pyarrow and sparknn."
        )
        if module == "sparknn":
            message += (
                " On a cluster, install sparknn on every node, or send it with the job: `make zip`,"
                " then spark-submit --py-files dist/sparknn-VERSION.zip (in a notebook:"
                " spark.sparkContext.addPyFile(...))."
            )
        return message
    if found := _NO_SPACE.search(text):
        return (
            f"A disk that Spark writes to is full ({found[1]}). On scratch disks, a fit needs the "
            "size of all features as float32, and as much for Spark's shuffle. Set spark.local.dir "
            "(SPARK_LOCAL_DIRS of a standalone worker) to disks with enough room."
        )
    return None


def _is_raised(kind: type[Exception], text: str) -> bool:
    """Return whether a Python worker's error is of this class."""
    return end_of_traceback(text).partition(": ")[0] == f"{kind.__module__}.{kind.__name__}"


def changed_rows() -> DataError:
    """Return the error of a DataFrame whose rows differ when they are read again."""
    return DataError(
        "The DataFrame's rows, or their order, changed when Spark read a part of them again to "
        "replace rows that were lost. It may use rand(), limit() or sample() after a shuffle, or "
        "read a source that changes. Write it to files first, or call df.checkpoint(), and fit on "
        "the result.",
        reason="changed",
    )


def root_cause(error: Exception) -> str:
    """Return the message of an error's root cause.

    That is the last line of a Python worker's traceback, or else the last ``Caused by`` of a Java
    stack trace, whose first line is often py4j's.
    """
    text = str(error)
    if _TRACEBACK in text:
        return end_of_traceback(text) or text.partition("\n")[0]
    causes = re.findall(r"^(?:Caused by)?: (.+)$", text, re.MULTILINE)
    return str(causes[-1]) if causes else text.partition("\n")[0]


def end_of_traceback(text: str) -> str:
    """Return the exception's line: the first after the last traceback that is not indented.

    It is empty if there is no traceback.
    """
    _, found, after = text.rpartition(_TRACEBACK)
    lines = after.splitlines() if found else []
    own = (line for line in lines if re.match(r"[\w.]+(: |$)", line))
    return next(own, "").rstrip("'\"")


def error_class(error: BaseException) -> str:
    """Return the error class of a Spark error, such as PATH_NOT_FOUND; empty if it has none."""
    # pyspark 4 has both, of which it deprecates the second.
    found = getattr(error, "getCondition", None) or getattr(error, "getErrorClass", None)
    return str((found() if found else None) or "")
