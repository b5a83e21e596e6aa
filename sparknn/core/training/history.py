"""The record of a round: losses, timings, and the agreement of the workers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparknn.core.nn.input_layer import InputLayer
from sparknn.core.training.aggregation import LossSum, WorkerSum
from sparknn.core.training.averaging import AveragingState
from sparknn.core.types import Float32Array, FloatArray


@dataclass(frozen=True)
class RoundRecord:
    """One round of a fit.

    Parameters
    ----------
    round : int
        From 0.
    loss : float
        Weighted mean of the rows' losses, each before its step; NaN without a step.
    validation_loss, validation_metric : float
        Of the averaged network at the end of the round. The metric is what the fit goes by; if that
        is the loss, the accuracy, or the mean squared error, summed over standardised targets. NaN
        without validation rows.
    loss_before, loss_after : float
        Training loss before and after averaging: over the last tenth of the round, and over the
        first tenth of the next one (NaN in the last round).
    n_rows, n_steps, n_skipped : int
        Over all workers: rows used, steps taken, steps skipped because the gradient, or its square
        in float32, was not finite.
    seconds : float
        Wall time of the round, ``broadcast_s`` and ``job_s`` included.
    broadcast_s, job_s : float
        To broadcast the networks; to train, sum and return.
    compute_s : float
        Training time of the slowest worker.
    drift : float
        Root mean square distance of the workers' networks from the one they started from.
    agreement : float
        Share of the workers' squared updates that survives averaging: 1 if all are equal, about
        1 / workers if they are random.
    step_norm : float
        Norm of the averaged network's update.
    workers_left_out : int
        Workers that had rows and whose result was not used.
    step_factor : float
        Factor of ``stepSize`` in this round; below 1 after rounds that diverged.
    """

    round: int
    loss: float
    n_rows: int
    n_steps: int
    n_skipped: int
    compute_s: float
    drift: float
    agreement: float
    step_norm: float
    workers_left_out: int
    step_factor: float
    loss_before: float = math.nan
    loss_after: float = math.nan
    validation_loss: float = math.nan
    validation_metric: float = math.nan
    seconds: float = 0.0
    broadcast_s: float = 0.0
    job_s: float = 0.0


def make_record(
    total: WorkerSum,
    round_: int,
    before: AveragingState,
    after: AveragingState,
    step_factor: float,
    mean: FloatArray | None,
    layer: InputLayer | None = None,
) -> RoundRecord:
    """Summarise a round. Sums run over partitions in order, so every run gives the same numbers.

    ``mean`` is ``total.mean()``, or None if no worker is usable; ``layer`` says where the inputs
    are in the parameters.
    """
    reports = total.ordered()
    used = [report for report in reports if report.share]
    weight = math.fsum(report.weight for report in used)
    moved = agreed = math.nan
    if mean is not None:
        shares = math.fsum(report.share for report in used)
        moved = math.fsum(report.share * report.squared_update_norm for report in used) / shares
        others = before.theta
        if layer is not None:
            block, others = layer.split(others)
        displacement = mean[0].astype(np.float64) - others
        agreed = float(np.dot(displacement, displacement))
        if total.rows is not None:
            agreed += total.rows.squared_distance(block)
    return RoundRecord(
        round=round_,
        loss=math.fsum(report.loss_sum for report in used) / weight if used else math.nan,
        n_rows=sum(report.n_rows for report in reports),
        n_steps=sum(report.n_steps for report in reports),
        n_skipped=sum(report.n_skipped for report in reports),
        compute_s=max((report.seconds for report in reports), default=0.0),
        drift=math.sqrt(moved) if used else math.nan,
        agreement=min(1.0, agreed / moved) if used and moved > 0 else math.nan,
        step_norm=_distance(before.theta, after.theta, sparse=total.rows is not None),
        workers_left_out=sum(r.left_out not in ("", "no rows") for r in reports),
        step_factor=step_factor,
        loss_before=mean_loss([report.last for report in used]),
    )


# Numbers that are made float64 at a time.
_CHUNK = 1 << 17


def _distance(a: Float32Array, b: Float32Array, *, sparse: bool) -> float:
    # Of a network without a sparse block all at once: the last bits of sums depend on it.
    chunk = _CHUNK if sparse else max(len(a), 1)
    square = 0.0
    for start in range(0, len(a), chunk):
        step = b[start : start + chunk].astype(np.float64) - a[start : start + chunk]
        square += float(np.dot(step, step))
    return math.sqrt(square)


def mean_loss(sums: list[LossSum]) -> float:
    """Return the weighted mean over workers; NaN without any weight."""
    weight = math.fsum(part.weight for part in sums)
    return math.fsum(part.loss for part in sums) / weight if weight > 0 else math.nan


def loss_at_start(total: WorkerSum) -> float:
    """Return the mean loss over the first tenth of a round."""
    return mean_loss([report.first for report in total.ordered() if report.share])
