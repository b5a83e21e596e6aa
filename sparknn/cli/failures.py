"""What went wrong, in one line: the cause, not an exception's journey through two languages."""

from __future__ import annotations

import re

from sparknn.engine.worker_errors import end_of_traceback


def one_line(error: BaseException) -> str:
    """The line of an error that a user can act on.

    Errors of Spark carry a worker's traceback or a chain of Java causes; their last one is meant.
    """
    text = str(error).strip()
    if end := end_of_traceback(text):
        return _without_class(end)
    causes = re.findall(r"^Caused by: (.+)$", text, re.MULTILINE)
    if causes:
        return _without_class(causes[-1])
    if type(error).__name__ == "Py4JJavaError":
        java = [line[2:] for line in text.splitlines() if line.startswith(": ")]
        return _without_class(java[0] if java else text.splitlines()[0])
    if _from_spark(error):
        return _tidy(text.splitlines()[0]) if text else type(error).__name__
    if isinstance(error, ValueError | RuntimeError | OSError) and text:
        return " ".join(text.split())
    return f"{type(error).__name__}: {' '.join(text.split())} (--verbose shows where)"


def _from_spark(error: BaseException) -> bool:
    return any(kind.__module__.startswith("pyspark.") for kind in type(error).__mro__)


def _without_class(line: str) -> str:
    """`org.example.SomeException: text` -> `text`; the class alone if there is no text."""
    _, colon, rest = line.partition(": ")
    return _tidy(rest if colon and rest.strip() else line)


def _tidy(line: str) -> str:
    """Without Spark's SQL state, which explains nothing here."""
    return re.sub(r"\.? SQLSTATE: \w+", ".", line).strip()
