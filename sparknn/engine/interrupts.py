"""Control-C waits until the JVM has answered: in the middle of a call, py4j hangs up on everybody.

What py4j does then, in versions 0.10.9.7 to 0.10.9.9 at least, is to let the JVM close every
connection of this process, those of other threads and of the calls that follow too, once it comes
to it. The error that some later call meets then hides the interrupt, and clean-up fails.
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

# Seconds between two tries to cancel: a job may start just after the first.
_PAUSE_S = 0.2
# Tries in a row that may fail, before the JVM is taken to be gone.
_MOST_FAILURES = 5
# Seconds before it is said what is being waited for.
_SILENT_S = 1.0
# Who still presses Control-C after so many seconds wants out, whatever it leaves behind.
_PATIENCE_S = 5.0
# What is held back within so many seconds of the last interrupt, clean-up first of all, belongs to
# it: patience is not counted anew.
_APART_S = 1.0


@contextmanager
def defer_interrupts(cancel: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an interrupt back until what is inside has ended, one way or another; then raise it.

    Parameters
    ----------
    cancel : callable, optional
        Makes what is inside end soon. Called from another thread when there is an interrupt,
        and again until it has ended. By default what is inside takes the time that it takes.

    Raises
    ------
    KeyboardInterrupt
        Instead of the error, if any, that being cancelled led to.

    Notes
    -----
    Python calls handlers of signals in the main thread alone: elsewhere there is nothing to hold
    back. A handler that does not simply raise ``KeyboardInterrupt`` is left as it is.
    """
    if threading.current_thread() is not threading.main_thread() or not _raises(
        before := signal.getsignal(signal.SIGINT)
    ):
        yield
        return
    held = _DeferringHandler(cancel)
    signal.signal(signal.SIGINT, held)
    try:
        yield
    finally:
        try:
            held.end()
        finally:
            signal.signal(signal.SIGINT, before)
        # Read last: it may have come at the very end.
        if held.interrupted:
            raise KeyboardInterrupt from None


def _raises(handler: object) -> bool:
    """Whether a handler is Python's own, the one that pyspark puts in its place, or ours."""
    return (
        handler is signal.default_int_handler
        or isinstance(handler, _DeferringHandler)
        or (getattr(handler, "__module__", None) or "").partition(".")[0] == "pyspark"
    )


class _DeferringHandler:
    """A handler of SIGINT that cancels instead of raising."""

    # When the last one that was interrupted ended, and when its Control-C was pressed first.
    _last_end = _last_press = -math.inf

    def __init__(self, cancel: Callable[[], None] | None) -> None:
        self.interrupted = False
        self._cancel = cancel
        self._ended = threading.Event()
        follows = time.monotonic() - _DeferringHandler._last_end < _APART_S
        self._pressed = _DeferringHandler._last_press if follows else math.inf
        self._thread: threading.Thread | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._pressed > _PATIENCE_S:
            self.interrupted = True
            raise KeyboardInterrupt
        self._pressed = min(self._pressed, now)
        if not self.interrupted:
            self.interrupted = True
            if not self._ended.is_set():
                # In another thread, as this one may be in the middle of a call.
                thread = threading.Thread(target=self._cancel_until_done, daemon=True)
                thread.start()
                self._thread = thread

    def end(self) -> None:
        """Cancel no longer."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        _DeferringHandler._last_end = time.monotonic() if self.interrupted else -math.inf
        _DeferringHandler._last_press = self._pressed

    def _cancel_until_done(self) -> None:
        """Cancel until it has ended, and say after a while what is being waited for."""
        silent_until = time.monotonic() + _SILENT_S
        n_failures, said = 0, False
        while not self._ended.is_set():
            if self._cancel is not None and n_failures < _MOST_FAILURES:
                try:
                    self._cancel()
                    n_failures = 0
                except Exception as error:
                    # Under spark-submit the JVM hears of Control-C, too, and is gone with its jobs.
                    n_failures += 1
                    log.debug("Jobs were not cancelled (%s: %s).", type(error).__name__, error)
            if not said and time.monotonic() > silent_until:
                said = True
                log.warning(
                    "Interrupted; waiting for Spark to end what it has begun. "
                    "Control-C after %.0f seconds does not wait.",
                    _PATIENCE_S,
                )
            self._ended.wait(_PAUSE_S)
