"""Run the workers in turn in this process: the reference whose bytes every engine must match."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import reduce

from sparknn.core.config import RoundRequest
from sparknn.core.data.rows import Rows
from sparknn.core.training.aggregation import WorkerReport, WorkerSum, merge_sums
from sparknn.core.training.runner import RoundResult
from sparknn.core.training.worker_round import run_worker


class LocalEngine:
    """Run rounds as a plain loop over workers.

    Parameters
    ----------
    shards : sequence of (Rows, Rows)
        Training and validation rows, one pair per worker.
    weight_scale : float
        ``weight_scale_for`` of all training rows.
    drop : callable, optional
        ``(round, partition) -> bool``: whether a worker's result is lost.
    """

    def __init__(
        self,
        shards: Sequence[tuple[Rows, Rows]],
        weight_scale: float,
        drop: Callable[[int, int], bool] | None = None,
    ) -> None:
        self._shards = shards
        self._weight_scale = weight_scale
        self._drop = drop
        self.n_workers = len(shards)
        self.n_slots = 1
        self.has_validation = any(validation.n_rows for _, validation in shards)

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Train every request on every worker, one after the other."""
        started = time.perf_counter()
        totals = []
        for partition, (rows, validation) in enumerate(self._shards):
            mine = run_worker(requests, rows, validation, round_, partition, self._weight_scale)
            if self._drop is not None and self._drop(round_, partition):
                mine = [_lost(total) for total in mine]
            totals.append(mine)
        merged = reduce(merge_sums, totals)
        return RoundResult(merged, job_s=time.perf_counter() - started)


def _lost(total: WorkerSum) -> WorkerSum:
    (report,) = total.reports
    return WorkerSum.from_worker(None, WorkerReport(report.partition, left_out="missing"))
