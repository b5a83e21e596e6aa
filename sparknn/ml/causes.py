"""What an error of Spark's says, without what is said around it."""

from __future__ import annotations

import re

_TRACEBACK = "Traceback (most recent call last):"


def cause_of(error: Exception) -> str:
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
