"""An engine that follows a script: networks move by 1 a round, and losses are read from a list."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparknn.core.averaging import Report, Score, Total, merge_all
from sparknn.core.fit import Averaging, Fit
from sparknn.core.network import Network
from sparknn.core.plan import Job, Plan
from sparknn.core.runner import RoundResult

NETWORK = Network((1, 1), loss="squared")


class ScriptedEngine:
    """Two workers. The network that has moved n times has the validation loss ``losses[n]``.

    ``fails(job, round, partition)`` tells which results are NaN.
    """

    n_workers = n_slots = 2

    def __init__(
        self,
        losses: Sequence[float] | None = None,
        fails: Callable[[Job, int, int], bool] = lambda job, round_, partition: False,
    ) -> None:
        self.losses = losses
        self.has_validation = losses is not None
        self.fails = fails
        self.asked: list[tuple[int, list[Job]]] = []

    def run_round(self, jobs: Sequence[Job], round_: int) -> RoundResult:
        self.asked.append((round_, list(jobs)))
        workers = [[self._total(job, round_, p) for job in jobs] for p in range(2)]
        return RoundResult(merge_all(*workers), broadcast_s=0.25, job_s=0.5)

    def _total(self, job: Job, round_: int, partition: int) -> Total:
        score = None
        if self.losses is not None and partition == 0:
            score = Score(2 * self.losses[int(job.state[0, 0])], 1.0, 2.0, 2)
        if not job.train:
            return Total.of(None, Report(partition, score=score))
        state = job.state + np.float32(np.nan if self.fails(job, round_, partition) else 1)
        report = Report(
            partition, weight=1.0, n_rows=1, n_steps=4, share=0.5, loss_sum=3.0, score=score
        )
        return Total.of(state, report)


def scripted_fit(max_iter: int, averaging: Averaging | None = None, **more: Any) -> Fit:
    """A fit that starts at 0, so that a network's parameters count the rounds it has seen."""
    plan = Plan(NETWORK, max_iter=max_iter, solver=more.pop("solver", "sgd"))
    theta = np.zeros(NETWORK.n_params, np.float32)
    return Fit(plan, averaging or Averaging(), 2, theta=theta, **more)


def rounds_seen(fit: Fit) -> float:
    """How many rounds the final network has moved."""
    assert fit.theta is not None
    return float(fit.theta[0])
