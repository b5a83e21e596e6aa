"""Sum workers' networks exactly: the order and tree of merges do not change a byte.

Float addition is not associative, and results reach the reducers in the order in which tasks
end. So workers' values are added as 64-bit fixed-point integers, whose addition is associative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparknn.core.training.fixed_point import FRACTION_BITS, VALUE_BITS
from sparknn.core.training.row_sums import RowSums
from sparknn.core.training.validation import ValidationSums
from sparknn.core.types import Float32Array, FloatArray

# Values that are converted at a time: all at once, a large network would be in memory twice more.
_CHUNK = 1 << 17

# Values of `left_out` that mean that training diverged.
DIVERGED = ("not finite", "out of range")


class NoUsableWorkerError(ValueError):
    """No worker returned a usable network."""


def weight_scale_for(total_weight: float) -> float:
    """Return the divisor that turns weights into shares: a power of two, so division is exact.

    Parameters
    ----------
    total_weight : float
        Sum of the weights of all training rows, over all workers.
    """
    return 2.0 ** math.ceil(math.log2(total_weight)) if total_weight > 0 else 1.0


@dataclass(frozen=True)
class LossSum:
    """Weighted sum of losses, and sum of weights, of some rows."""

    loss: float = 0.0
    weight: float = 0.0

    def plus(self, loss: float, weight: float) -> LossSum:
        return LossSum(self.loss + loss, self.weight + weight)


NO_LOSS = LossSum()


@dataclass(frozen=True)
class WorkerReport:
    """Scalar statistics of one worker in one round.

    Parameters
    ----------
    partition : int
    weight : float
        Sum of the weights of the rows used, repeats counted.
    n_rows, n_steps, n_skipped : int
        Rows used, steps taken, steps skipped.
    loss_sum : float
        Weighted sum of the rows' losses, each before its step.
    first, last : LossSum
        Losses over the first and the last tenth of the mini-batches.
    squared_update_norm : float
        Squared distance between the broadcast network and the trained one.
    seconds : float
        Training time.
    score : ValidationSums, optional
        Of the broadcast network, on the worker's validation rows.
    share : float
        The worker's weight in the mean: the weight of its rows, repeats not counted, divided by
        ``weight_scale_for``. 0 if the worker is left out.
    left_out : str
        Why the worker is left out: ``no rows``, ``not finite``, ``out of range``, ``missing``.
    """

    partition: int
    weight: float = 0.0
    n_rows: int = 0
    n_steps: int = 0
    n_skipped: int = 0
    loss_sum: float = 0.0
    first: LossSum = NO_LOSS
    last: LossSum = NO_LOSS
    squared_update_norm: float = 0.0
    seconds: float = 0.0
    score: ValidationSums | None = None
    share: float = 0.0
    left_out: str = ""


@dataclass(frozen=True)
class WorkerSum:
    """Sum of some workers' networks, weighted by each one's rows, and their reports.

    The sum of a single worker keeps its float32 values: a message takes 4 bytes per parameter, and
    the mean of one worker is its network to the byte. Merging converts them to int64.

    Parameters
    ----------
    values : ndarray, shape (1 + buffers, P), float32 or int64; None if no worker is usable
        Of a network with a sparse block, without that block's weights (see ``input_layer``).
    reports : tuple of WorkerReport
    rows : RowSums, optional
        The weights of the sparse block.
    """

    values: FloatArray | np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None
    reports: tuple[WorkerReport, ...]
    rows: RowSums | None = None

    @classmethod
    def from_worker(
        cls, state: Float32Array | None, report: WorkerReport, rows: RowSums | None = None
    ) -> WorkerSum:
        """Wrap one worker's result; leave the worker out if a value is non-finite or too large."""
        reason = report.left_out
        if not reason:
            if state is None or report.share <= 0:
                reason = "no rows"
            else:
                # NaN propagates through max and min.
                largest = float(max(state.max(), -state.min()))
                if rows is not None and rows.values.size:
                    # `max` of Python would pass over a NaN.
                    largest = float(np.max([largest, rows.values.max(), -rows.values.min()]))
                if not np.isfinite(largest) or not np.isfinite(report.loss_sum):
                    reason = "not finite"
                elif largest >= 2**VALUE_BITS:
                    reason = "out of range"
        if reason:
            return cls(None, (replace(report, share=0.0, left_out=reason),))
        return cls(state, (report,), rows)

    def _to_fixed_point(self, part: slice) -> NDArray[np.int64]:
        """Return some of the values as fixed-point integers."""
        assert self.values is not None
        values = self.values.reshape(-1)[part]
        if values.dtype == np.int64:
            return values.astype(np.int64, copy=False)
        (share,) = [report.share for report in self.reports if report.share]
        scaled = values.astype(np.float64)
        scaled *= share * 2.0**FRACTION_BITS
        return np.rint(scaled, out=scaled).astype(np.int64)

    def merge(self, other: WorkerSum) -> WorkerSum:
        """Add two sums; commutative and associative to the byte (reports up to their order)."""
        reports = self.reports + other.reports
        if self.values is None:
            return replace(other, reports=reports)
        if other.values is None:
            return replace(self, reports=reports)
        total = np.empty(self.values.size, np.int64)
        for start in range(0, total.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            np.add(self._to_fixed_point(part), other._to_fixed_point(part), out=total[part])
        rows = None
        if self.rows is not None and other.rows is not None:
            rows = self.rows.merge(other.rows)
        return WorkerSum(total.reshape(self.values.shape), reports, rows)

    def ordered(self) -> tuple[WorkerReport, ...]:
        """Return the reports by partition, so that sums over them are the same in every run."""
        return tuple(sorted(self.reports, key=lambda report: report.partition))

    def mean(self) -> FloatArray:
        """Average the workers, each weighted by its rows.

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
                f"None of {len(self.reports)} workers returned a usable network "
                f"({', '.join(reasons)})."
            )
        if self.values.dtype != np.int64:
            return self.values.astype(np.float32, copy=False)
        shares = math.fsum(report.share for report in self.ordered())
        return np.asarray(self.values / (2.0**FRACTION_BITS * shares))


def merge_sums(left: list[WorkerSum], right: list[WorkerSum]) -> list[WorkerSum]:
    """Merge the sums of two sets of workers, network by network."""
    return [mine.merge(theirs) for mine, theirs in zip(left, right, strict=True)]
