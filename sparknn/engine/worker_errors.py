"""Errors of Spark and its Python workers, translated into what to do about them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Other modules may be missing in what the user runs upstream; Spark's own words are best then. Of a
# library that is not there it is the top that is missed; of an old sparknn it may be a part.
_ABSENT = re.compile(
    r"No module named '?(numpy|pandas|pyarrow|sparknn(?:\.[\w.]+)?)(?![\w.])"
    r"|(PyArrow|Pandas) >= .{0,60}must be installed"
)

# What Java says if there is no such program on an executor.
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"')

# What ``spill`` says of a disk.
_UNWRITABLE = re.compile(r"The shard of worker \d+ cannot be written to .*")

_TRACEBACK = "Traceback (most recent call last):"


class WorkerEnvironmentError(RuntimeError):
    """Executors lack what sparknn needs there: something in their Python, or room on a disk."""


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """Turn a task's missing import, or missing Python, into an error that says what to set."""
    try:
        yield
    except Exception as error:
        unwritable = _UNWRITABLE.search(str(error))
        if unwritable is not None:
            raise WorkerEnvironmentError(unwritable[0]) from error
        program = _NO_PYTHON.search(str(error))
        if program is not None:
            raise WorkerEnvironmentError(_no_python(program[1])) from error
        found = _ABSENT.search(str(error))
        if found is None:
            raise
        module = (found[1] or found[2]).split(".")[0]
        raise WorkerEnvironmentError(_advice(module)) from error


def _no_python(program: str) -> str:
    return (
        f"Spark's Python workers cannot start: there is no {program} where they run. Set "
        "PYSPARK_PYTHON (or spark.pyspark.python) to a Python that is on every node, or that "
        "travels with the job (--archives)."
    )


def _advice(module: str) -> str:
    another = (
        f"They may be running another Python than this one, {sys.executable}: set PYSPARK_PYTHON "
        f"(or spark.pyspark.python) to one that has what sparknn needs."
    )
    if module == "sparknn":
        return (
            f"Spark's Python workers cannot import sparknn. {another} On a cluster, install it "
            f"on every node, or send it along: `make zip`, then spark-submit --py-files "
            f"dist/sparknn-VERSION.zip (in a notebook: spark.sparkContext.addPyFile(...))."
        )
    return (
        f"Spark's Python workers cannot import {module}, which sparknn needs on every node "
        f"(numpy, pandas, pyarrow). {another}"
    )


def root_cause(error: Exception) -> str:
    """What an error says: of a chain of Java's, where the first is often py4j's, the last one.

    Of a Python worker's, the last line of its traceback.
    """
    text = str(error)
    if _TRACEBACK in text:
        return end_of_traceback(text) or text.partition("\n")[0]
    causes = re.findall(r"^(?:Caused by)?: (.+)$", text, re.MULTILINE)
    return str(causes[-1]) if causes else text.partition("\n")[0]


def end_of_traceback(text: str) -> str:
    """The exception's own line: the first that is not indented after the last traceback began.

    Empty if there is no traceback.
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
