"""The loop of a fit: send networks out, train, average, score, stop.

The loop knows an engine by one method, so it is the same on a laptop's arrays and on a cluster.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sparknn.core.averaging import Total
from sparknn.core.fit import Fit
from sparknn.core.runner import RoundRunner
from sparknn.core.times import RoundTimes, training_time

log = logging.getLogger("sparknn")

# Rounds by whose times a fit is judged: after the first, in which Python workers start. The one
# that was most worth it counts: the others may have seen a lost executor, or been cut short.
_JUDGED = 2


@dataclass(frozen=True)
class _Measured:
    """Seconds of a round, and of all its training one after the other; workers with rows."""

    seconds: float
    alone: float
    n_workers: int


def _measured(totals: list[Total], seconds: float) -> _Measured:
    workers = {report.partition for report in totals[0].reports if report.n_rows}
    alone = math.fsum(report.seconds for total in totals for report in total.reports)
    return _Measured(seconds, alone, len(workers))


def _say_if_one_is_faster(rounds: Sequence[_Measured], cure: str = "") -> None:
    """Tell the user when averaging costs more time than it saves."""
    best = max(rounds, key=lambda each: each.alone / max(each.seconds, 1e-9))
    if best.n_workers > 1 and 0 < best.alone < best.seconds:
        log.info(
            "One worker would train a round's rows in about %.2f s, besides what Spark takes; with "
            "%d workers the round took %.2f s, most of it around training. For these rows "
            "numWorkers=1 is likely faster, or more work between averages: %slocalEpochs or "
            "miniBatchFraction.",
            best.alone,
            best.n_workers,
            best.seconds,
            cure,
        )


def run(engine: RoundRunner, fits: Sequence[Fit]) -> None:
    """Train all ``fits`` together, a round at a time; one that ends leaves the list.

    Fits that were restored to a later round wait until the others are there too.

    Raises
    ------
    DivergedError
        If no worker's network could be used in three rounds in a row, or in any round.
    """
    rounds: list[_Measured] = []
    # Rounds that adapt may yet become worth their cost: they are judged at the end, all of them.
    adapting = any(fit.adapt_period for fit in fits)
    cure = "" if all(fit.adapt_period for fit in fits) else "period='auto', "
    while running := [fit for fit in fits if not fit.ended and not fit.all_done]:
        round_ = min(len(fit.history) for fit in running)
        together = [fit for fit in running if len(fit.history) == round_]
        started = time.perf_counter()
        result = engine.run_round([fit.job() for fit in together], round_)
        seconds = time.perf_counter() - started
        cost = max(0.0, seconds - training_time(result.totals, engine.n_slots))
        times = RoundTimes(seconds, result.broadcast_s, result.job_s, cost if rounds else None)
        rounds.append(_measured(result.totals, seconds))
        if len(rounds) == 1 + _JUDGED and not adapting:
            _say_if_one_is_faster(rounds[1:], cure)
        for fit, total in zip(together, result.totals, strict=True):
            fit.absorb(engine, total, round_, times)
        for fit in together:
            if fit.ended or fit.all_done:
                fit.finish(engine)
            elif fit.after_round is not None:
                fit.after_round(fit)
    for fit in fits:
        if not fit.ended:
            # It had no round to run.
            fit.finish(engine)
    if len(rounds) > 1 and (adapting or len(rounds) <= _JUDGED):
        _say_if_one_is_faster(rounds[1:], cure)
