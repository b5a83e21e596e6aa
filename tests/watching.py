"""Watch the rounds of fits, and let a fit die in one of them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """Stands for a driver that dies; an ``Exception`` of a callback would end one fit alone."""


class Rounds(logging.Handler):
    """Collect the rounds that are logged; raise at the ``die_at``-th."""

    def __init__(self, die_at: int, error: type[BaseException]) -> None:
        super().__init__()
        self.die_at, self.error = die_at, error
        self.seen: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "sparknn_round"):
            self.seen.append(record.sparknn_round.round)
            if len(self.seen) == self.die_at:
                raise self.error


@contextmanager
def rounds(die_at: int = 0, error: type[BaseException] = Interrupted) -> Iterator[list[int]]:
    """Collect the rounds that run inside."""
    handler, log = Rounds(die_at, error), logging.getLogger("sparknn")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.seen
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
