"""The round loop: broadcast networks, train, average, score, stop.

It uses one method of an engine, and so runs unchanged on local arrays and on a cluster.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sparknn.core.data.chunks import split_by_size
from sparknn.core.training.aggregation import WorkerSum
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.round_length import RoundTimes, training_time
from sparknn.core.training.runner import RoundRunner

log = logging.getLogger("sparknn")

# Bytes that a worker returns per round; one network alone may be larger.
_MAX_MESSAGE_BYTES = 64 << 20
# Rounds whose times show whether averaging pays: those after the first, in which Python workers
# start. The best of them counts, as a lost executor may have delayed others.
_JUDGED = 2


def run_all(engine: RoundRunner, fits: Sequence[FitState]) -> None:
    """Train all fits, as many at a time as fit into a worker's message."""
    for part in split_by_size([fit.message_bytes for fit in fits], _MAX_MESSAGE_BYTES):
        run(engine, fits[part])


def run(engine: RoundRunner, fits: Sequence[FitState]) -> None:
    """Train ``fits`` together, round by round, each until it ends.

    A fit that diverges, or whose ``on_round_end`` raises, ends alone, with its ``error`` set. Fits
    restored to a later round wait until the others have reached it.
    """
    rounds: list[_RoundCost] = []
    # Rounds that adapt their length may still come to pay: judge all of them at the end.
    adapting = any(fit.adapt_round_length for fit in fits)
    hint = "" if all(fit.adapt_round_length for fit in fits) else "period='auto', "
    while running := [fit for fit in fits if not fit.ended and not fit.all_done]:
        round_ = min(len(fit.history) for fit in running)
        current = [fit for fit in running if len(fit.history) == round_]
        started = time.perf_counter()
        result = engine.run_round([fit.request() for fit in current], round_)
        seconds = time.perf_counter() - started
        # Only adapting rounds need the number of slots, which takes calls into the JVM.
        cost = None
        if rounds and adapting:
            cost = max(0.0, seconds - training_time(result.totals, engine.n_slots))
        times = RoundTimes(seconds, result.broadcast_s, result.job_s, cost)
        rounds.append(_cost_of(result.totals, seconds))
        if len(rounds) == 1 + _JUDGED and not adapting:
            _warn_if_overhead_dominates(rounds[1:], hint)
        for fit, total in zip(current, result.totals, strict=True):
            fit.end_round(engine, total, round_, times)
        # Of a large network, they take more memory than the fit itself.
        del result, total
        for fit in current:
            if fit.ended or fit.all_done:
                fit.finalize(engine)
            elif fit.on_checkpoint is not None:
                fit.on_checkpoint(fit)
    for fit in fits:
        if not fit.ended:
            # It had no rounds to run.
            fit.finalize(engine)
    if len(rounds) > 1 and (adapting or len(rounds) <= _JUDGED):
        _warn_if_overhead_dominates(rounds[1:], hint)


@dataclass(frozen=True)
class _RoundCost:
    """Seconds of a round, and of its training if done serially; number of workers with rows."""

    seconds: float
    serial_s: float
    n_workers: int


def _cost_of(totals: list[WorkerSum], seconds: float) -> _RoundCost:
    workers = {report.partition for report in totals[0].reports if report.n_rows}
    serial_s = math.fsum(report.seconds for total in totals for report in total.reports)
    return _RoundCost(seconds, serial_s, len(workers))


def _warn_if_overhead_dominates(rounds: Sequence[_RoundCost], hint: str = "") -> None:
    """Log if a single worker would be faster."""
    best = max(rounds, key=lambda each: each.serial_s / max(each.seconds, 1e-9))
    if best.n_workers > 1 and 0 < best.serial_s < best.seconds:
        log.info(
            "Spark overhead dominates: a round took %.2f s with %d workers, of which training "
            "would take one worker %.2f s. Try numWorkers=1, or more work per round: "
            "%slocalEpochs or miniBatchFraction.",
            best.seconds,
            best.n_workers,
            best.serial_s,
            hint,
        )
