"""Exact sums over workers: the same bytes in whatever order, and however often, they are merged.

Float addition is not associative, and results reach a tree of reducers in the order that tasks
happen to end. So a worker's numbers are added as 64-bit fixed-point integers, whose addition is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sparknn.core.types import Float32Array, FloatArray

# A worker's values are multiplied by its share (at most 1, summing to at most 1) and by
# 2 ** FRACTION_BITS, and rounded. With values below 2 ** VALUE_BITS the sum over any number of
# workers stays below 2 ** 62; a parameter of that size or more is taken for divergence.
VALUE_BITS = 14
FRACTION_BITS = 48


# Why a worker is left out whose training went wrong.
DIVERGED = ("not finite", "out of range")


class NoUsableWorkerError(ValueError):
    """No worker sent a usable network."""


def weight_scale_for(total_weight: float) -> float:
    """What weights are divided by to become shares: a power of two, so that dividing is exact.

    Parameters
    ----------
    total_weight : float
        Sum of the weights of all training rows, over all workers.
    """
    return 2.0 ** math.ceil(math.log2(total_weight)) if total_weight > 0 else 1.0


@dataclass(frozen=True)
class ValidationSums:
    """Sums over a worker's validation rows.

    Parameters
    ----------
    loss_sum, metric_sum, weight : float
        Weighted sums of the losses and of right answers (or squared errors), and of the weights.
    n_rows : int
    """

    loss_sum: float
    metric_sum: float
    weight: float
    n_rows: int


@dataclass(frozen=True)
class LossSum:
    """Weighted sum of some rows' losses, and of their weights."""

    loss: float = 0.0
    weight: float = 0.0

    def plus(self, loss: float, weight: float) -> LossSum:
        return LossSum(self.loss + loss, self.weight + weight)


NO_LOSS = LossSum()


@dataclass(frozen=True)
class WorkerReport:
    """One worker's scalars in one round.

    Parameters
    ----------
    partition : int
    weight : float
        Sum of the weights of the rows seen.
    n_rows, n_steps, n_skipped : int
    loss_sum : float
        Weighted sum of the losses as they were seen.
    first, last : LossSum
        Of the first and the last tenth of its mini-batches.
    squared_move : float
        Squared distance between the network that arrived and the one sent back.
    seconds : float
        Spent training.
    score : ValidationSums, optional
        Of the network that arrived, on the worker's validation rows.
    share : float
        What the worker weighs in the mean: the weight of its rows, repeats not counted, in units of
        ``weight_scale_for``. 0 if it is left out.
    left_out : str
        Why it is: ``no rows``, ``not finite``, ``out of range``, ``missing``.
    """

    partition: int
    weight: float = 0.0
    n_rows: int = 0
    n_steps: int = 0
    n_skipped: int = 0
    loss_sum: float = 0.0
    first: LossSum = NO_LOSS
    last: LossSum = NO_LOSS
    squared_move: float = 0.0
    seconds: float = 0.0
    score: ValidationSums | None = None
    share: float = 0.0
    left_out: str = ""


@dataclass(frozen=True)
class WorkerSum:
    """The sum of some workers' networks, weighted by the rows each one saw, and their reports.

    A single worker's total holds its float32 values as they are, so that a message costs 4 bytes a
    parameter, and one worker's mean is that worker to the byte. Merging lifts them to int64.

    Parameters
    ----------
    values : ndarray, shape (1 + buffers, P), float32 or int64; None if no worker is usable
    reports : tuple of WorkerReport
    """

    values: FloatArray | np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None
    reports: tuple[WorkerReport, ...]

    @classmethod
    def from_worker(cls, state: Float32Array | None, report: WorkerReport) -> WorkerSum:
        """One worker's total. Values that are not finite or out of range leave the worker out."""
        reason = report.left_out
        if not reason:
            if state is None or report.share <= 0:
                reason = "no rows"
            else:
                # One pass: NaN fails every comparison.
                largest = float(max(state.max(), -state.min()))
                if not np.isfinite(largest) or not np.isfinite(report.loss_sum):
                    reason = "not finite"
                elif largest >= 2**VALUE_BITS:
                    reason = "out of range"
        if reason:
            return cls(None, (replace(report, share=0.0, left_out=reason),))
        return cls(state, (report,))

    def to_fixed_point(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
        """The values as fixed-point integers."""
        if self.values is None or self.values.dtype == np.int64:
            return None if self.values is None else self.values.astype(np.int64, copy=False)
        (share,) = [report.share for report in self.reports if report.share]
        scaled = self.values.astype(np.float64)
        scaled *= share * 2.0**FRACTION_BITS
        return np.rint(scaled, out=scaled).astype(np.int64)

    def merge(self, other: WorkerSum) -> WorkerSum:
        """The sum of both. Commutes and associates to the byte (``reports`` up to their order)."""
        reports = self.reports + other.reports
        if self.values is None:
            return replace(other, reports=reports)
        if other.values is None:
            return replace(self, reports=reports)
        mine, theirs = self.to_fixed_point(), other.to_fixed_point()
        assert mine is not None and theirs is not None
        return WorkerSum(mine + theirs, reports)

    def ordered(self) -> tuple[WorkerReport, ...]:
        """The reports by partition: what is summed from them is then the same in every run."""
        return tuple(sorted(self.reports, key=lambda report: report.partition))

    def mean(self) -> FloatArray:
        """Average workers by the rows each one saw, not one vote each.

            mean = sum_k(w_k * values_k) / sum_k(w_k)

        Returns
        -------
        ndarray, shape (1 + buffers, P)
            float32, unchanged, for one worker; float64 otherwise.

        Raises
        ------
        NoUsableWorkerError
            If no worker is usable.

        Notes
        -----
        McMahan et al. 2017, Algorithm 1, arXiv:1602.05629.
        """
        if self.values is None:
            reasons = sorted({report.left_out for report in self.reports})
            raise NoUsableWorkerError(
                f"None of {len(self.reports)} workers sent a usable network ({', '.join(reasons)})."
            )
        if self.values.dtype != np.int64:
            return self.values.astype(np.float32, copy=False)
        shares = math.fsum(report.share for report in self.ordered())
        return np.asarray(self.values / (2.0**FRACTION_BITS * shares))


def merge_sums(left: list[WorkerSum], right: list[WorkerSum]) -> list[WorkerSum]:
    """Merge two workers' totals job by job."""
    return [mine.merge(theirs) for mine, theirs in zip(left, right, strict=True)]
