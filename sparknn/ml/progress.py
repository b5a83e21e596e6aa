"""One log record a finished round: logger ``sparknn``, level INFO."""

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
    """Logs the rounds of one fit.

    The record carries ``sparknn_round``, the RoundRecord, and ``sparknn_uid``, the estimator's uid.

    Parameters
    ----------
    uid : str
    name : str
        Which parameter map, ``map 3 of 8``; empty for a single fit.
    """

    uid: str
    name: str = ""

    def __call__(self, fit: FitState, record: RoundRecord) -> None:
        """A round has ended."""
        record = in_target_units(record, fit.config)
        line = round_line(record, fit)
        log.info(
            "%s",
            f"{self.name}: {line}" if self.name else line,
            extra={"sparknn_round": record, "sparknn_uid": self.uid},
        )


def round_line(record: RoundRecord, fit: FitState) -> str:
    """``round  3/20  loss 0.1234  validation loss 0.1100, accuracy 97.10 %  81,000 rows/s ...``"""
    n_rounds = fit.config.max_iter
    parts = [
        f"round {record.round + 1:>{len(str(n_rounds))}}/{n_rounds}",
        f"loss {record.loss:.4f}",
    ]
    if not math.isnan(record.validation_loss):
        classifies = fit.config.network.loss_fn.classifies
        metric = (
            f"accuracy {100 * record.validation_metric:.2f} %"
            if classifies
            else f"squared error {record.validation_metric:.4g}"
        )
        parts.append(f"validation loss {record.validation_loss:.4f}, {metric}")
    seconds = [past.seconds for past in fit.history]
    if record.seconds > 0:
        parts.append(f"{record.n_rows / record.seconds:,.0f} rows/s")
    parts.append(f"{record.seconds:.1f} s")
    left = (n_rounds - record.round - 1) * sum(seconds) / len(seconds)
    if left > 0:
        parts.append(f"{left:.0f} s left")
    return "  ".join(parts)
