"""Control-C waits until the JVM has answered: in the middle of a call, py4j hangs up on everybody.

What py4j does then, in versions 0.10.9.7 to 0.10.9.9 at least, is to let the JVM close every
connection of this process, those of other threads and of the calls that follow too, once it comes
to it. The error that some later call meets then hides the interrupt, and clean-up fails.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("sparknn")

# Seconds between two tries to cancel: a job may start just after the first.
_PAUSE_S = 0.2
# Who still presses Control-C after so many seconds wants out, whatever it leaves behind.
_PATIENCE_S = 5.0


@contextmanager
def interrupts_wait(cancel: Callable[[], None] | None = None) -> Iterator[None]:
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
    held = _Held(cancel)
    signal.signal(signal.SIGINT, held)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held.end():
            raise KeyboardInterrupt from None


def _raises(handler: object) -> bool:
    """Whether a handler is Python's own, the one that pyspark puts in its place, or ours."""
    return (
        handler is signal.default_int_handler
        or isinstance(handler, _Held)
        or getattr(handler, "__module__", "").partition(".")[0] == "pyspark"
    )


class _Held:
    """A handler of SIGINT that cancels instead of raising."""

    def __init__(self, cancel: Callable[[], None] | None) -> None:
        self._cancel = cancel
        self._ended = threading.Event()
        self._since: float | None = None
        self._thread: threading.Thread | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._since is not None:
            if now - self._since > _PATIENCE_S:
                raise KeyboardInterrupt
            return
        self._since = now
        if self._cancel is not None:
            # In another thread, as this one may be in the middle of a call.
            self._thread = threading.Thread(target=self._keep, args=(self._cancel,), daemon=True)
            self._thread.start()

    def end(self) -> bool:
        """Cancel no longer; whether there was an interrupt."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        return self._since is not None

    def _keep(self, cancel: Callable[[], None]) -> None:
        while not self._ended.is_set():
            try:
                cancel()
            except Exception as error:
                # Under spark-submit the JVM hears of Control-C, too, and takes its jobs with it.
                log.debug("Nothing is left to cancel (%s: %s).", type(error).__name__, error)
                return
            self._ended.wait(_PAUSE_S)
