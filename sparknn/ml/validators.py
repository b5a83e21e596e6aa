"""Which values a param takes, and a guess at what was meant by one that it does not."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'relu'?``, or nothing if nothing known resembles ``word``."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""


class Rule(Protocol):
    """Which values a param takes."""

    def problem(self, value: Any) -> str | None:
        """What was expected instead of ``value``; None if it is fine."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, finite in any case.

    Parameters
    ----------
    low, high : float
    open_low, open_high : bool
        Whether the end itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def problem(self, value: Any) -> str | None:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return None if above and below and math.isfinite(value) else f"expected a number {self}"

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'>' if self.open_low else '>='} {self.low:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        if value in self.words:
            return None
        return f"expected {self}{did_you_mean(str(value), self.words)}"

    def __str__(self) -> str:
        quote_column = [f"'{word}'" for word in self.words]
        return " or ".join([", ".join(quote_column[:-1]), quote_column[-1]])


@dataclass(frozen=True)
class Each:
    """A list whose every entry follows a rule."""

    rule: Rule

    def problem(self, value: Any) -> str | None:
        for entry in value:
            if problem := self.rule.problem(entry):
                return f"{problem} in every place"
        return None

    def __str__(self) -> str:
        return f"each {self.rule}"
