"""Defer Control-C until calls of the JVM have returned: inside one, it breaks py4j's connections.

py4j, in versions 0.10.9.7 to 0.10.9.9 at least, then lets the JVM close every connection of this
process, those of other threads and of later calls included. The error that a later call meets hides
the interrupt, and clean-up fails.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("sparknn")

# Seconds between two calls of ``cancel``: a job may start just after the first.
_PAUSE_S = 0.2
# Failures of ``cancel`` in a row after which the JVM is assumed to be gone.
_MAX_FAILURES = 5
# Seconds before a message says what is being waited for.
_SILENT_S = 1.0
# Seconds after the first Control-C from which another one is raised at once.
_PATIENCE_S = 5.0
# Seconds after an interrupted block within which the next one, such as clean-up, counts as part of
# it: the patience of the first is not counted again.
_FOLLOW_UP_S = 1.0


@contextmanager
def defer_interrupts(cancel: Callable[[], object] | None = None) -> Iterator[None]:
    """Raise an interrupt only when the block inside has ended, with or without an error.

    Parameters
    ----------
    cancel : callable, optional
        Makes the block end soon. Upon an interrupt it is called from another thread, again and
        again until the block has ended. By default the block takes the time that it takes.

    Raises
    ------
    KeyboardInterrupt
        Instead of an error that the block ends with.

    Notes
    -----
    Python runs signal handlers in the main thread only; in other threads nothing is deferred. A
    handler of the user's, which may do something else than raise, stays in place.
    """
    if threading.current_thread() is not threading.main_thread() or not _raises(
        before := signal.getsignal(signal.SIGINT)
    ):
        yield
        return
    handler = _DeferringHandler(cancel)
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        try:
            handler.end()
        finally:
            signal.signal(signal.SIGINT, before)
        # Read last, as an interrupt may come at the very end.
        if handler.interrupted:
            raise KeyboardInterrupt from None


def _raises(handler: object) -> bool:
    """Return whether a handler is Python's own, pyspark's, or ours: all raise in the end."""
    return (
        handler is signal.default_int_handler
        or isinstance(handler, _DeferringHandler)
        or (getattr(handler, "__module__", None) or "").partition(".")[0] == "pyspark"
    )


class _DeferringHandler:
    """Handle SIGINT by cancelling instead of raising."""

    # When the last interrupted block ended, and when Control-C was first pressed in it.
    _last_end = _last_press = -math.inf

    def __init__(self, cancel: Callable[[], object] | None) -> None:
        self.interrupted = False
        self._cancel = cancel
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        follows = time.monotonic() - _DeferringHandler._last_end < _FOLLOW_UP_S
        self._first_press = _DeferringHandler._last_press if follows else math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        was_interrupted, self.interrupted = self.interrupted, True
        now = time.monotonic()
        if now - self._first_press > _PATIENCE_S:
            raise KeyboardInterrupt
        self._first_press = min(self._first_press, now)
        if not was_interrupted and not self._ended.is_set():
            # In another thread, as this one may be inside a call of the JVM.
            thread = threading.Thread(target=self._cancel_until_ended, daemon=True)
            thread.start()
            self._thread = thread

    def end(self) -> None:
        """Stop cancelling."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        _DeferringHandler._last_end = time.monotonic() if self.interrupted else -math.inf
        _DeferringHandler._last_press = self._first_press

    def _cancel_until_ended(self) -> None:
        """Call ``cancel`` until the block has ended, and report a long wait once."""
        silent_until = time.monotonic() + _SILENT_S
        n_failures = 0
        while not self._ended.is_set():
            if self._cancel is not None and n_failures < _MAX_FAILURES:
                try:
                    self._cancel()
                    n_failures = 0
                except Exception as error:
                    # Under spark-submit, Control-C ends the JVM, too, and its jobs with it.
                    n_failures += 1
                    log.debug("Jobs were not cancelled (%s: %s).", type(error).__name__, error)
            if time.monotonic() > silent_until:
                silent_until = math.inf
                log.warning(
                    "Interrupted: waiting for Spark's running jobs to stop. "
                    "Press Control-C again after %.0f seconds to stop at once.",
                    _PATIENCE_S,
                )
            self._ended.wait(_PAUSE_S)
