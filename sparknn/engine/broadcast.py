"""Send a large value once for all DataFrame functions that use it.

Over Spark Connect, which has no broadcasts, it is a file that stays until the session ends.

pyspark broadcasts a function that pickles to more than 1 MB itself, once per plan, and each time
leaves a file on the driver until the session ends: only ``Broadcast.destroy()`` removes it, and
only the JVM's garbage collector knows when no plan needs it any more.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import tempfile
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from sparknn.engine.sql import is_connect

if TYPE_CHECKING:
    from pyspark import Broadcast, SparkContext
    from pyspark.sql import SparkSession

log = logging.getLogger("sparknn")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Less than pyspark's limit of 1 MiB, which includes the function around the value.
_MAX_INLINE_BYTES = 1_000_000
# Over Spark Connect: half of the 128 MiB that a server accepts as a message by default
# (spark.connect.grpc.maxInboundMessageSize).
MAX_CLOSURE_BYTES = 64 << 20


@dataclass(frozen=True)
class SentFile(Generic[T]):
    """A value in a file that Spark Connect sends to every executor."""

    name: str

    @property
    def value(self) -> T:
        """The value; in Spark's Python workers only, which keep the last one."""
        value: T = _load(self.name)
        return value


@lru_cache(maxsize=1)
def _load(name: str) -> Any:
    from pyspark import SparkFiles

    with open(SparkFiles.get(name), "rb") as file:
        return pickle.load(file)


class Sent(Protocol[T_co]):
    """What holds a value in a Python worker: a broadcast, or a file."""

    @property
    def value(self) -> T_co:
        """The value."""


class CachedBroadcast(Generic[T]):
    """Send one value at most once per session; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: SparkContext | None = None
        self._broadcast: Broadcast[T] | None = None
        self._remote: SparkSession | None = None
        self._file: SentFile[T] | None = None

    def __reduce__(self) -> tuple[type[CachedBroadcast[T]], tuple[()]]:
        # A broadcast belongs to one process.
        return type(self), ()

    def get(self, value: T, n_bytes: int, session: SparkSession) -> T | Sent[T]:
        """Return what a function should hold: the value if it is small, else what holds it.

        Parameters
        ----------
        value : object
            The same one at every call.
        n_bytes : int
            Approximate size when pickled.
        session : SparkSession
            The DataFrame's.

        Raises
        ------
        RuntimeError
            If a session of Spark Connect does not accept files.
        """
        remote = is_connect(session)
        if n_bytes <= (MAX_CLOSURE_BYTES if remote else _MAX_INLINE_BYTES):
            return value
        if remote:
            with self._lock:
                if self._file is None or self._remote is not session:
                    self._file, self._remote = _send_file(value, session), session
                return self._file
        context = session.sparkContext
        with self._lock:
            # Broadcasts end with their context.
            if self._broadcast is None or self._context is not context:
                self._broadcast, self._context = context.broadcast(value), context
                _remove_file_with(self._broadcast, context)
            return self._broadcast


def _send_file(value: object, session: Any) -> SentFile[Any]:
    data = pickle.dumps(value, protocol=5)
    # Equal names must have equal contents.
    name = f"sparknn-{hashlib.sha256(data).hexdigest()[:32]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        try:
            session.addArtifacts(str(path), file=True)
        except Exception as error:
            raise RuntimeError(
                f"The network has {len(data) >> 20} MiB; Spark Connect sends at most "
                f"{MAX_CLOSURE_BYTES >> 20} MiB with a function, and this session does not accept "
                f"files ({type(error).__name__}). Predict in a classic session, or without Spark, "
                "by model.toLocal().predict(X)."
            ) from error
    return SentFile(name)


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
