"""Log one record per finished round: logger ``sparknn``, level INFO."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from sparknn.core.training.fit_state import FitState
from sparknn.core.training.history import RoundRecord
from sparknn.ml.training_setup import in_target_units

log = logging.getLogger("sparknn")


@dataclass(frozen=True)
class Progress:
    """Log the rounds of one fit.

    Log records have attributes ``sparknn_round``, the RoundRecord, and ``sparknn_uid``, the uid of
    the estimator.

    Parameters
    ----------
    uid : str
    name : str
        Which parameter map, ``map 3 of 8``; empty for a single fit.
    """

    uid: str
    name: str = ""

    def __call__(self, fit: FitState, record: RoundRecord) -> None:
        """Log a round that has ended; called as ``FitState.on_round_end``."""
        record = in_target_units(record, fit.config)
        line = round_line(record, fit)
        log.info(
            "%s",
            f"{self.name}: {line}" if self.name else line,
            extra={"sparknn_round": record, "sparknn_uid": self.uid},
        )


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
    parts.append(f"loss {record.loss:.4f}")
    if not math.isnan(record.validation_loss):
        loss_fn = fit.config.network.loss_fn
        metric = (
            f"accuracy {100 * record.validation_metric:.2f} %"
            if loss_fn.classifies
            else f"{loss_fn.metric_name} {record.validation_metric:.4g}"
        )
        parts.append(f"validation loss {record.validation_loss:.4f}, {metric}")
    if record.seconds > 0:
        parts.append(f"{record.n_rows / record.seconds:,.0f} rows/s")
    parts.append(f"{record.seconds:.1f} s")
    left = (n_units - fit.n_done) * sum(past.seconds for past in fit.history) / fit.n_done
    if left > 0:
        parts.append(f"{left:.0f} s left")
    return "  ".join(parts)
