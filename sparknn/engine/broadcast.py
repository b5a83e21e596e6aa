"""Broadcast a large value once for all DataFrame functions that use it.

pyspark broadcasts a function that pickles to more than 1 MB itself, once per plan, and each time
leaves a file on the driver until the session ends: only ``Broadcast.destroy()`` removes it, and
only the JVM's garbage collector knows when no plan needs it any more.
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

# Less than pyspark's limit of 1 MiB, which includes the function around the value.
_MAX_INLINE_BYTES = 1_000_000


class CachedBroadcast(Generic[T]):
    """Broadcast one value at most once per session; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: SparkContext | None = None
        self._broadcast: Broadcast[T] | None = None

    def __reduce__(self) -> tuple[type[CachedBroadcast[T]], tuple[()]]:
        # A broadcast belongs to one process.
        return type(self), ()

    def get(self, value: T, n_bytes: int, session: SparkSession) -> T | Broadcast[T]:
        """Return what a function should hold: the value if it is small, else its broadcast.

        Parameters
        ----------
        value : object
            The same one at every call.
        n_bytes : int
            Approximate size when pickled.
        session : SparkSession
            The DataFrame's. Spark Connect has no broadcasts.
        """
        if n_bytes <= _MAX_INLINE_BYTES or is_connect(session):
            return value
        context = session.sparkContext
        with self._lock:
            # Broadcasts end with their context.
            if self._broadcast is None or self._context is not context:
                self._broadcast, self._context = context.broadcast(value), context
                _remove_file_with(self._broadcast, context)
            return self._broadcast


def _remove_file_with(broadcast: Broadcast[Any], context: SparkContext) -> None:
    """Let the JVM delete a broadcast's file once no plan and no Python object refers to it."""
    # A client of Spark Connect may lack py4j.
    from py4j.protocol import Py4JError

    jvm: Any = context._jvm
    try:
        tracker = jvm.org.apache.commons.io.FileCleaningTracker()
        tracker.track(broadcast._path, broadcast._jbroadcast)
        # Its thread ends with the file.
        tracker.exitWhenFinished()
    except (Py4JError, TypeError) as error:
        # Must not prevent predictions: some platforms restrict which methods Python may call.
        log.info(
            "The file of a broadcast, %s, stays until the session ends (%s: %s).",
            broadcast._path,
            type(error).__name__,
            str(error).partition("\n")[0],
        )
