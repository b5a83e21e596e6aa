"""Show running fits in one live line, in a notebook or on a terminal; with tqdm, it is a bar."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparknn.core.training.fit_state import FitState

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("sparknn")


class LiveLine:
    """One line on stderr for fits that run together; use it in a ``with`` block.

    Nothing is shown if nobody watches, that is outside notebooks and terminals, or if the rounds
    are logged.

    Parameters
    ----------
    wanted : bool
        Whether the estimators' ``verbose`` is on.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and not log.isEnabledFor(logging.INFO) and _is_watched()
        self._fits: Sequence[FitState] = ()
        self._bar: Any = None
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._width:
            sys.stderr.write("\n")

    def begin(self, fits: Sequence[FitState]) -> None:
        """Show fits that are about to run."""
        self._fits = fits
        if not self._wanted or not fits:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        total = sum(fit.config.max_iter for fit in fits)
        done = sum(fit.n_done for fit in fits)
        self._bar = tqdm(total=total, initial=done, unit="round", file=sys.stderr, leave=True)

    def show(self, scores: str, line: str) -> None:
        """Show the round that has ended: ``scores`` beside a bar, or all of ``line``."""
        if self._bar is not None:
            self._bar.n = sum(fit.n_done for fit in self._fits)
            self._bar.set_postfix_str(scores)
        elif self._wanted:
            # The last column stays empty, or some terminals begin a new line.
            line = line[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)


def _is_watched() -> bool:
    """Return whether stderr goes to a terminal, or to the cell of a notebook."""
    if sys.stderr is None:
        return False
    # Only if somebody else has imported it: a notebook's kernel, or IPython's terminal.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None or sys.stderr.isatty()
