"""Choose how many units of local work lie between two averages, by the cost of a round.

A *unit of local work* is ``local_epochs`` passes over ``mini_batch_fraction`` of the rows. A fit
has ``max_iter`` units. By default a round is one unit; a round of adapted length takes several.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparknn.core.training.aggregation import WorkerSum

# Training should take at least this many times the overhead of a round.
_TRAINING_PER_COST = 2.0
# A fit averages at least about this often, however large the overhead.
_MIN_ROUNDS = 5


def next_round_length(
    last: int, training_s: float, cost_s: float | None, n_done: int, n_units: int
) -> int:
    """Return the number of units of the next round.

    Parameters
    ----------
    last : int
        Units of the last round.
    training_s, cost_s : float
        Seconds of its training, and of its overhead (None if unknown).
    n_done, n_units : int
        Units so far and in the whole fit.

    Notes
    -----
    As many as make the overhead worthwhile, but at most twice the last, because a single round may
    have been disturbed.
    """
    worthwhile = last
    if cost_s is not None:
        needed = _TRAINING_PER_COST * cost_s * last
        if needed > 2 * last * training_s:
            worthwhile = 2 * last
        elif training_s:
            worthwhile = math.ceil(needed / training_s)
    most = min(max(1, n_units // _MIN_ROUNDS), n_units - n_done)
    return max(1, min(worthwhile, most))


@dataclass(frozen=True)
class RoundTimes:
    """Seconds of a round.

    Parameters
    ----------
    seconds : float
        Wall time.
    broadcast_s, job_s : float
        To broadcast the networks; to train, sum and return.
    cost_s : float, optional
        Overhead: all but training. None in the first round, in which workers start.
    """

    seconds: float
    broadcast_s: float = 0.0
    job_s: float = 0.0
    cost_s: float | None = None


def training_time(totals: Sequence[WorkerSum], n_slots: int) -> float:
    """Simulate the seconds from the first worker's start to the last one's end, without overhead.

    Workers start in the order of their partitions, each when a slot is free, like Spark tasks
    without locality; a worker trains the networks of all ``totals`` one after the other.
    """
    by_worker: dict[int, float] = {}
    for total in totals:
        for report in total.reports:
            by_worker[report.partition] = by_worker.get(report.partition, 0.0) + report.seconds
    free_at = [0.0] * max(1, n_slots)
    for partition in sorted(by_worker):
        heapq.heapreplace(free_at, free_at[0] + by_worker[partition])
    return max(free_at)
