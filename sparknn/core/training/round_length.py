"""How much local work lies between two averages: fixed, or as much as a round's cost asks for.

A *stint* is the local work of a round of fixed period: ``local_epochs`` passes over
``mini_batch_fraction`` of the rows. A fit has ``max_iter`` stints; a longer round takes several.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparknn.core.training.aggregation import WorkerSum

# Local work should take at least this many times what a round costs besides it.
_WORTH = 2.0
# However dear rounds are, a fit has about this many: averaging still has to happen.
_LEAST_ROUNDS = 5


def next_round_length(
    last: int, training_s: float, cost_s: float | None, factor: float, n_done: int, n_units: int
) -> int:
    """Stints of the next round.

    Parameters
    ----------
    last : int
        Stints of the last round.
    training_s, cost_s : float
        What its local work took, and what the round cost besides; None if that is not known.
    factor : float
        What the schedule now makes of the step size, in [0, 1].
    n_done, n_units : int
        Stints so far and in the whole fit.

    Notes
    -----
    As many as are worth the round, but no more than twice the last: a single round may have been
    disturbed. And as the step size falls, workers drift apart more slowly: the quadratic rule,
    H = (alpha / step size)^2 (Gu et al., arXiv:2310.14423, eq. 3), with alpha such that H is one
    stint at the full step size.
    """
    paying = last
    if cost_s is not None:
        enough = _WORTH * cost_s * last
        if enough > 2 * last * training_s:
            paying = 2 * last
        elif training_s:
            paying = math.ceil(enough / training_s)
    quadratic = math.floor(min(1 / max(factor, 1e-3) ** 2, n_units)) if n_done else 1
    most = min(max(1, n_units // _LEAST_ROUNDS), n_units - n_done)
    return max(1, min(max(paying, quadratic), most))


@dataclass(frozen=True)
class RoundTimes:
    """Seconds that a round took.

    Parameters
    ----------
    seconds : float
        Wall time.
    broadcast_s, job_s : float
        Of it, to send the networks out, and to train, sum and return.
    cost_s : float, optional
        Of it, all but training: what a round costs however much it trains. None in the first round,
        in which workers start.
    """

    seconds: float
    broadcast_s: float = 0.0
    job_s: float = 0.0
    cost_s: float | None = None


def training_time(totals: Sequence[WorkerSum], n_slots: int) -> float:
    """Seconds from the first worker's start to the last one's end, were there training alone.

    Workers begin in order of their partitions, each as soon as one of the slots is free, as Spark's
    tasks do where any executor will do; a worker trains the networks of all ``totals`` in turn.
    """
    by_worker: dict[int, float] = {}
    for total in totals:
        for report in total.reports:
            by_worker[report.partition] = by_worker.get(report.partition, 0.0) + report.seconds
    free_at = [0.0] * max(1, n_slots)
    for partition in sorted(by_worker):
        heapq.heapreplace(free_at, free_at[0] + by_worker[partition])
    return max(free_at)
