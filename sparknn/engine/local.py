"""The plain engine, every worker in turn in this process: others must match its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import reduce

from sparknn.core.averaging import Report, Total, merge_all
from sparknn.core.plan import Job
from sparknn.core.rows import Rows
from sparknn.core.runner import RoundResult
from sparknn.core.training import work


class LocalEngine:
    """Workers as a loop.

    Parameters
    ----------
    shards : sequence of (Rows, Rows)
        Training and validation rows, a pair a worker.
    unit : float
        ``weight_unit`` of all training rows.
    drop : callable, optional
        ``(round, partition) -> bool``: simulates a worker whose result is lost.
    """

    def __init__(
        self,
        shards: Sequence[tuple[Rows, Rows]],
        unit: float,
        drop: Callable[[int, int], bool] | None = None,
    ) -> None:
        self._shards = shards
        self._unit = unit
        self._drop = drop
        self.n_workers = len(shards)
        self.n_slots = 1
        self.has_validation = any(validation.n_rows for _, validation in shards)

    def run_round(self, jobs: Sequence[Job], round_: int) -> RoundResult:
        """Run every job on every worker, one after the other."""
        started = time.perf_counter()
        totals = []
        for partition, (rows, validation) in enumerate(self._shards):
            mine = work(jobs, rows, validation, round_, partition, self._unit)
            if self._drop is not None and self._drop(round_, partition):
                mine = [_lost(total) for total in mine]
            totals.append(mine)
        merged = reduce(merge_all, totals)
        return RoundResult(merged, job_s=time.perf_counter() - started)


def _lost(total: Total) -> Total:
    (report,) = total.reports
    return Total.of(None, Report(report.partition, left_out="missing"))
