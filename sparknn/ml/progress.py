"""Report every round that has ended: to the log, to the live line and to callbacks.

The log is the logger ``sparknn``, level INFO.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from sparknn.core.training.fit_state import FitState
from sparknn.core.training.history import RoundRecord
from sparknn.core.training.validation import METRICS
from sparknn.ml.callbacks import FinishedRound
from sparknn.ml.live_line import LiveLine
from sparknn.ml.training_setup import in_target_units

log = logging.getLogger("sparknn")


@dataclass(frozen=True)
class Progress:
    """Log and show the rounds of one fit, and call the estimator's callbacks.

    Log records have attributes ``sparknn_round``, the RoundRecord, and ``sparknn_uid``, the uid of
    the estimator.

    Parameters
    ----------
    estimator : HasCallbacks, Params
    map_index, n_maps : int
        Which parameter map of how many.
    live : LiveLine, optional
    """

    estimator: Any
    map_index: int = 0
    n_maps: int = 1
    live: LiveLine | None = None

    def __call__(self, fit: FitState, record: RoundRecord) -> bool:
        """Report a round that has ended, as ``FitState.on_round_end``; return whether to stop."""
        record = in_target_units(record, fit)
        name, line = map_name(self.map_index, self.n_maps), round_line(record, fit)
        line = f"{name}: {line}" if name else line
        log.info("%s", line, extra={"sparknn_round": record, "sparknn_uid": self.estimator.uid})
        if self.live is not None:
            scores = scores_of(record, fit)
            self.live.show(f"{name}: {scores}" if name else scores, line)
        ended = FinishedRound(
            **vars(record),
            estimator=self.estimator,
            map_index=self.map_index,
            n_maps=self.n_maps,
            progress=fit.n_done / fit.config.max_iter,
        )
        # All of them see the round, also if one stops the fit.
        answers = [callback(ended) for callback in self.estimator.getCallbacks()]
        stop = any(answers)
        if stop:
            log.info("%sStopped by a callback.", f"{name}: " if name else "")
        return stop


def map_name(index: int, n_maps: int) -> str:
    """Return ``map 3 of 8``; empty for a single one."""
    return f"map {index + 1} of {n_maps}" if n_maps > 1 else ""


def round_line(record: RoundRecord, fit: FitState) -> str:
    """Return ``round  3/20  loss 0.1234  validation loss 0.1100, accuracy 97.10 %  0.5 s ...``.

    With ``period='auto'`` a round takes one or more of ``maxIter`` units of local work, and the
    line has both counts: ``round  3  7/20 units``.
    """
    n_units, width = fit.config.max_iter, len(str(fit.config.max_iter))
    if fit.adapt_round_length:
        parts = [f"round {record.round + 1:>{width}}", f"{fit.n_done:>{width}}/{n_units} units"]
    else:
        parts = [f"round {record.round + 1:>{width}}/{n_units}"]
    parts.append(scores_of(record, fit))
    if record.seconds > 0:
        parts.append(f"{record.n_rows / record.seconds:,.0f} rows/s")
    parts.append(f"{record.seconds:.1f} s")
    left = (n_units - fit.n_done) * sum(past.seconds for past in fit.history) / fit.n_done
    if left > 0:
        parts.append(f"{left:.0f} s left")
    return "  ".join(parts)


def scores_of(record: RoundRecord, fit: FitState) -> str:
    """Return ``loss 0.1234  validation loss 0.1100, accuracy 97.10 %``."""
    scores = f"loss {record.loss:.4f}"
    if math.isnan(record.validation_loss):
        return scores
    loss_fn, metric = fit.config.network.loss_fn, f"{record.validation_metric:.4g}"
    if fit.averaging.metric in METRICS:
        metric = f"{fit.averaging.metric} {metric}"
    elif loss_fn.classifies:
        metric = f"accuracy {100 * record.validation_metric:.2f} %"
    else:
        metric = f"{loss_fn.metric_name} {metric}"
    return f"{scores}  validation loss {record.validation_loss:.4f}, {metric}"
