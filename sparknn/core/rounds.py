"""The loop of a fit: send networks out, train, average, score, stop.

The loop knows an engine by one method, so it is the same on a laptop's arrays and on a cluster.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from sparknn.core.averaging import Total
from sparknn.core.fit import Fit
from sparknn.core.runner import RoundRunner

log = logging.getLogger("sparknn")

# The round by whose time a fit is judged: by then Python workers are warm.
_JUDGED_ROUND = 2


def _say_if_one_is_faster(totals: list[Total], seconds: float) -> None:
    """Tell the user, once a fit, when averaging costs more time than it saves."""
    workers = {report.partition for report in totals[0].reports if report.n_rows}
    alone = math.fsum(report.seconds for total in totals for report in total.reports)
    if len(workers) > 1 and 0 < alone < seconds:
        log.info(
            "One worker would train a round's rows in about %.2f s; with %d workers the round took "
            "%.2f s, most of it around training. For these rows numWorkers=1 is faster, or more "
            "work between averages: period='auto', localEpochs or miniBatchFraction.",
            alone,
            len(workers),
            seconds,
        )


def run(engine: RoundRunner, fits: Sequence[Fit]) -> None:
    """Train all ``fits`` together, a round at a time; one that ends leaves the list.

    Fits that were restored to a later round wait until the others are there too.

    Raises
    ------
    DivergedError
        If no worker's network could be used in three rounds in a row, or in any round.
    """
    while running := [fit for fit in fits if not fit.ended and not fit.all_done]:
        round_ = min(len(fit.history) for fit in running)
        together = [fit for fit in running if len(fit.history) == round_]
        started = time.perf_counter()
        result = engine.run_round([fit.job() for fit in together], round_)
        seconds = time.perf_counter() - started
        if round_ == _JUDGED_ROUND:
            _say_if_one_is_faster(result.totals, seconds)
        for fit, total in zip(together, result.totals, strict=True):
            fit.absorb(engine, total, round_, seconds, result)
        for fit in together:
            if fit.ended or fit.all_done:
                fit.finish(engine)
            elif fit.after_round is not None:
                fit.after_round(fit)
    for fit in fits:
        if not fit.ended:
            # It had no round to run.
            fit.finish(engine)
