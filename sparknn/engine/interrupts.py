"""Control-C while the JVM works: py4j drops its connection, and at times the next one with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark import SparkContext

# How often, and how many seconds apart, a connection is tried.
_TRIES, _PAUSE_S = 10, 0.1


@contextmanager
def interrupts_survived(sc: SparkContext) -> Iterator[None]:
    """See that after an interrupt the JVM can be talked to, so that what was begun can be removed.

    py4j closes the interrupted connection on both sides, and the JVM now and then takes the next
    one for the one to close. An error of py4j's then hides the interrupt, and clean-up calls fail.

    Raises
    ------
    KeyboardInterrupt
        As it came, or instead of the error that followed from it.
    """
    try:
        yield
    except (KeyboardInterrupt, Py4JError) as error:
        interrupt = _interrupt_behind(error)
        if interrupt is None:
            raise
        _reconnect(sc)
        if interrupt is error:
            raise
        raise KeyboardInterrupt from error


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _reconnect(sc: SparkContext) -> None:
    for _ in range(_TRIES):
        try:
            sc._jsc.sc().isStopped()
            return
        except Py4JError:
            time.sleep(_PAUSE_S)
