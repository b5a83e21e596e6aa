"""Translate errors of Spark and its Python workers into what to do about them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Of errors that are not ours, Python and Java give no more than a message. Only the modules that
# sparknn needs are looked for: code of the user's may lack others, and Spark's message then stands.
_NO_MODULE = re.compile(
    r"No module named '?(numpy|pandas|pyarrow|sparknn(?:\.[\w.]+)?)(?![\w.])"
    r"|(PyArrow|Pandas) >= .{0,60}must be installed"
)
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"')

_TRACEBACK = "Traceback (most recent call last):"


class WorkerEnvironmentError(RuntimeError):
    """Executors lack what sparknn needs: a Python, a package in it, or room on a disk."""


class ShardWriteError(RuntimeError):
    """A Python worker cannot write its shard to the executor's disk."""


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """Turn errors of Spark that executors' environments cause into ``WorkerEnvironmentError``.

    Raises
    ------
    WorkerEnvironmentError
        With a message that says what to set.
    """
    try:
        yield
    except Exception as error:
        remote = type(error).__module__ == "pyspark.errors.exceptions.connect"
        message = _explain(str(error), remote)
        if message is None:
            raise
        raise WorkerEnvironmentError(message) from error


def _explain(text: str, remote: bool) -> str | None:
    """Return what to do about a Spark error; None if it has another cause.

    Over Spark Connect (``remote``), workers run the server's Python.
    """
    name, _, message = end_of_traceback(text).partition(": ")
    if name == f"{ShardWriteError.__module__}.{ShardWriteError.__name__}":
        return message
    if found := _NO_PYTHON.search(text):
        return (
            f"Spark's Python workers cannot start: there is no {found[1]} where they run. Set "
            "PYSPARK_PYTHON (or spark.pyspark.python) to a Python that exists on every node, or "
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
    return None


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
