"""The interface between the round loop and an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sparknn.core.config import RoundRequest
from sparknn.core.training.aggregation import WorkerSum


@dataclass(frozen=True)
class RoundResult:
    """Result of one round.

    Parameters
    ----------
    totals : list of WorkerSum
        One per network.
    broadcast_s, job_s : float
        Seconds to broadcast the networks; to train and sum.
    """

    totals: list[WorkerSum]
    broadcast_s: float = 0.0
    job_s: float = 0.0


class RoundRunner(Protocol):
    """The part of an engine that the round loop needs."""

    n_workers: int
    has_validation: bool

    @property
    def n_slots(self) -> int:
        """Number of workers that can train at the same time."""

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        """Run all requests on all workers; the same requests and round give the same bytes."""
