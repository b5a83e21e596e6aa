"""Rules for the values of params, and guesses at misspelled words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'relu'?``, or '' if no known word is similar."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""


class Rule(Protocol):
    """A rule for the values of a param; its ``str`` describes them."""

    def problem(self, value: Any) -> str | None:
        """Return what was expected instead of ``value``, or None if it is valid."""


@dataclass(frozen=True)
class Range:
    """Accept finite numbers from ``low`` to ``high``.

    Parameters
    ----------
    low, high : float
    open_low, open_high : bool
        Whether the bound itself is excluded.
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
    """Accept one of some words."""

    words: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        if value in self.words:
            return None
        return f"expected {self}{did_you_mean(str(value), self.words)}"

    def __str__(self) -> str:
        *others, last = [f"'{word}'" for word in self.words]
        return f"{', '.join(others)} or {last}"


@dataclass(frozen=True)
class Each:
    """Accept lists whose entries all follow a rule."""

    rule: Rule

    def problem(self, value: Any) -> str | None:
        for entry in value:
            if problem := self.rule.problem(entry):
                return f"{problem} for every entry"
        return None

    def __str__(self) -> str:
        return f"each {self.rule}"
