"""Mistakes in a command or its configuration: collected, worded alike, raised together."""

from __future__ import annotations

from collections.abc import Iterable


class UsageError(ValueError):
    """A command cannot start as it was given; the message names every mistake with its key.

    Parameters
    ----------
    where : str
        What holds the mistakes: a file or a command.
    mistakes : iterable of str
        Each starts with the key, option or column that is wrong.
    """

    def __init__(self, where: str, mistakes: Iterable[str]) -> None:
        self.where = where
        self.mistakes = list(mistakes)
        if len(self.mistakes) == 1:
            super().__init__(f"{where}: {self.mistakes[0]}")
        else:
            lines = [f"{where}: {len(self.mistakes)} mistakes", *self.mistakes]
            super().__init__("\n  ".join(lines))


class PathError(ValueError):
    """A path cannot be used as it was meant; the message starts with the key that holds it."""
