"""What an error of Spark's says, without what is said around it."""

from __future__ import annotations

import re


def cause_of(error: Exception) -> str:
    """What an error says: of a chain of Java's, where the first is often py4j's, the last one.

    Of a Python worker's, the last line of its traceback.
    """
    text = str(error)
    _, traceback, rest = text.rpartition("Traceback (most recent call last):")
    if traceback:
        ends = re.findall(r"^\w.*$", rest, re.MULTILINE)
        return ends[0] if ends else text.partition("\n")[0]
    causes = re.findall(r"^(?:Caused by)?: (.+)$", text, re.MULTILINE)
    return str(causes[-1]) if causes else text.partition("\n")[0]
