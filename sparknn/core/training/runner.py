"""What a fit asks of an engine, and what it gets for a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerSum


@dataclass(frozen=True)
class RoundResult:
    """What an engine returns for one round.

    Parameters
    ----------
    totals : list of WorkerSum
        One a job.
    broadcast_s, job_s : float
        Seconds to send the networks, and to train and sum.
    """

    totals: list[WorkerSum]
    broadcast_s: float = 0.0
    job_s: float = 0.0


class RoundRunner(Protocol):
    """The part of an engine that the loop needs."""

    n_workers: int
    has_validation: bool

    @property
    def n_slots(self) -> int:
        """Workers that can train at a time."""

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Run every job on every worker; the same jobs and round give the same bytes."""
