"""What a round took, and how much of that was training."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from sparknn.core.averaging import Total


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


def training_time(totals: Sequence[Total], n_slots: int) -> float:
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
