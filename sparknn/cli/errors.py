"""Errors of a command: bad usage with all its mistakes, and one line for any other error."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sparknn.engine.worker_errors import end_of_traceback


class UsageError(ValueError):
    """A command cannot start as it was given; exit status 2.

    Parameters
    ----------
    where : str
        What holds the mistakes: a file or a command.
    mistakes : iterable of str
        Each starts with the key, option or column that is wrong.
    """

    def __init__(self, where: str, mistakes: Iterable[str]) -> None:
        self.mistakes = list(mistakes)
        several = f" {len(self.mistakes)} mistakes\n  " if len(self.mistakes) > 1 else " "
        super().__init__(f"{where}:{several}" + "\n  ".join(self.mistakes))


def raise_mistakes(where: str, mistakes: Iterable[str]) -> None:
    """Raise UsageError if there are any mistakes; empty texts are none."""
    if found := [mistake for mistake in mistakes if mistake]:
        raise UsageError(where, found)


def one_line(error: BaseException) -> str:
    """Return the line of an error that a user can act on.

    Errors of Spark carry a worker's traceback or a chain of Java causes; the last one is meant.
    """
    text = str(error).strip()
    if end := end_of_traceback(text):
        return _without_class(end)
    if causes := re.findall(r"^Caused by: (.+)$", text, re.MULTILINE):
        return _without_class(causes[-1])
    if type(error).__name__ == "Py4JJavaError":
        java = [line[2:] for line in text.splitlines() if line.startswith(": ")]
        return _without_class(java[0] if java else text.splitlines()[0])
    if type(error).__module__.startswith("pyspark."):
        return _without_state(text.splitlines()[0]) if text else type(error).__name__
    if isinstance(error, ValueError | RuntimeError | OSError) and text:
        return " ".join(text.split())
    return f"{type(error).__name__}: {' '.join(text.split())} (--verbose shows where)"


def _without_class(line: str) -> str:
    """``org.example.SomeException: text`` -> ``text``; the class alone if there is no text."""
    _, colon, rest = line.partition(": ")
    return _without_state(rest if colon and rest.strip() else line)


def _without_state(line: str) -> str:
    """Drop Spark's SQL state, which explains nothing here."""
    return re.sub(r"\.? SQLSTATE: \w+", ".", line).strip()
