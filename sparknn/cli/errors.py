"""Errors of a command: bad usage with all its mistakes, and one line for any other error."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sparknn.engine.worker_errors import root_cause


class UsageError(ValueError):
    """A command cannot start as it was given; each mistake starts with the key that is wrong."""

    def __init__(self, where: str, mistakes: Iterable[str]) -> None:
        self.mistakes = list(mistakes)
        several = f" {len(self.mistakes)} mistakes\n  " if len(self.mistakes) > 1 else " "
        super().__init__(f"{where}:{several}" + "\n  ".join(self.mistakes))


def raise_mistakes(where: str, mistakes: Iterable[str]) -> None:
    """Raise UsageError if there are any mistakes; empty texts are none."""
    if found := [mistake for mistake in mistakes if mistake]:
        raise UsageError(where, found)


def one_line(error: Exception) -> str:
    """Return the line of an error that a user can act on; of Spark's, the last cause's."""
    text, cause = str(error).strip(), root_cause(error).strip()
    java = type(error).__name__ == "Py4JJavaError" or cause != text.partition("\n")[0]
    if cause and (java or type(error).__module__.startswith("pyspark.")):
        line = re.sub(r"^[\w.$]+(Error|Exception): (?=.)", "", cause)
        return re.sub(r"\.? SQLSTATE: \w+", ".", line).strip()
    line = " ".join(text.split())
    if isinstance(error, ValueError | RuntimeError | OSError | ImportError) and line:
        return line
    return f"{type(error).__name__}: {line} (--verbose shows where)"
