"""An engine that follows a script: networks move by 1 per round, and losses come from a list."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparknn.core.config import AveragingConfig, RoundRequest, TrainConfig
from sparknn.core.nn.network import Network
from sparknn.core.training.aggregation import WorkerReport, WorkerSum, merge_sums
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.runner import RoundResult
from sparknn.core.training.validation import ValidationSums

NETWORK = Network((1, 1), loss="squared")


class ScriptedEngine:
    """Two workers. The network that has moved n times has the validation loss ``losses[n]``.

    ``fails(request, round, partition)`` selects the results that are NaN.
    """

    n_workers = n_slots = 2

    def __init__(
        self,
        losses: Sequence[float] | None = None,
        fails: Callable[[RoundRequest, int, int], bool] = lambda request, round_, partition: False,
        accuracies: Sequence[float] | None = None,
    ) -> None:
        self.losses = losses
        self.accuracies = accuracies
        self.has_validation = losses is not None
        self.fails = fails
        self.asked: list[tuple[int, list[RoundRequest]]] = []

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        self.asked.append((round_, list(requests)))
        workers = [[self._total(request, round_, p) for request in requests] for p in range(2)]
        return RoundResult(merge_sums(*workers), broadcast_s=0.25, job_s=0.5)

    def _total(self, request: RoundRequest, round_: int, partition: int) -> WorkerSum:
        score = None
        if self.losses is not None and partition == 0:
            n = int(request.state[0, 0])
            accuracy = 0.5 if self.accuracies is None else self.accuracies[n]
            score = ValidationSums(2 * self.losses[n], 2 * accuracy, 2.0, 2)
        if not request.train:
            return WorkerSum.from_worker(None, WorkerReport(partition, score=score))
        state = request.state + np.float32(np.nan if self.fails(request, round_, partition) else 1)
        report = WorkerReport(
            partition, weight=1.0, n_rows=1, n_steps=4, share=0.5, loss_sum=3.0, score=score
        )
        return WorkerSum.from_worker(state, report)


def scripted_fit(max_iter: int, averaging: AveragingConfig | None = None, **more: Any) -> FitState:
    """A fit that starts at 0, so that a network's parameters count the rounds it has seen."""
    config = TrainConfig(NETWORK, max_iter=max_iter, solver=more.pop("solver", "sgd"))
    theta = np.zeros(NETWORK.n_params, np.float32)
    return FitState(config, averaging or AveragingConfig(), 2, theta=theta, **more)


def rounds_seen(fit: FitState) -> float:
    """How many rounds the final network has moved."""
    assert fit.theta is not None
    return float(fit.theta[0])
