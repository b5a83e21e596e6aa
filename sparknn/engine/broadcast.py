"""How a large value reaches the functions of a DataFrame: broadcast once, whatever uses it.

pyspark itself broadcasts a function that pickles to more than 1 MB, for every plan anew, and each
time leaves a file on the driver until the session ends: only ``Broadcast.destroy()`` removes it,
for which someone must know that no plan needs it any more. The JVM's garbage collector does.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sparknn.engine.sql import is_connect

if TYPE_CHECKING:
    from pyspark import Broadcast, SparkContext
    from pyspark.sql import SparkSession

log = logging.getLogger("sparknn")
T = TypeVar("T")

# Less than pyspark's 1 MiB, which counts the function around the value too.
_MOST_CARRIED_BYTES = 1_000_000


class CachedBroadcast(Generic[T]):
    """One value on its way to executors; what shares this shares the broadcast. Threads may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: SparkContext | None = None
        self._broadcast: Broadcast[T] | None = None

    def __reduce__(self) -> tuple[type[CachedBroadcast[T]], tuple[()]]:
        # A broadcast is at home in one process.
        return type(self), ()

    def get(self, value: T, n_bytes: int, session: SparkSession) -> T | Broadcast[T]:
        """What a function shall hold: the value if it is small, else its broadcast.

        Parameters
        ----------
        value : object
            Always the same one.
        n_bytes : int
            What it pickles to, about.
        session : SparkSession
            Of the DataFrame; Spark Connect has no broadcasts.
        """
        if n_bytes <= _MOST_CARRIED_BYTES or is_connect(session):
            return value
        context = session.sparkContext
        with self._lock:
            # A context that was stopped took its broadcasts with it.
            if self._broadcast is None or self._context is not context:
                self._broadcast, self._context = context.broadcast(value), context
                _remove_file_with(self._broadcast, context)
            return self._broadcast


def _remove_file_with(broadcast: Broadcast[Any], context: SparkContext) -> None:
    """Have the JVM delete a broadcast's file when no plan, and nobody in Python, holds it."""
    # What speaks to Spark Connect alone may lack py4j.
    from py4j.protocol import Py4JError

    jvm: Any = context._jvm
    try:
        tracker = jvm.org.apache.commons.io.FileCleaningTracker()
        tracker.track(broadcast._path, broadcast._jbroadcast)
        # Its thread shall end with the file.
        tracker.exitWhenFinished()
    except (Py4JError, TypeError) as error:
        # Must not stand in the way of predictions: some platforms restrict what Python may call.
        log.info(
            "The file of a broadcast, %s, is left until the session ends (%s: %s).",
            broadcast._path,
            type(error).__name__,
            str(error).partition("\n")[0],
        )
