"""One worker, one round: score the network that arrived, train it on local rows, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparknn.core.averaging import NO_LOSS, LossSum, Report, Score, Total
from sparknn.core.batches import (
    batches,
    count_batches,
    fetch,
    mean_weight,
    random_stream,
    row_bytes,
    windows,
)
from sparknn.core.network import Backprop
from sparknn.core.ngsgd import NaturalGradient
from sparknn.core.plan import Job
from sparknn.core.rows import Rows
from sparknn.core.schedules import SCHEDULES
from sparknn.core.solvers import SOLVERS
from sparknn.core.types import Float32Array, FloatArray

# Rows scored at a time; fewer where they are so wide that they take more than these bytes.
_SCORE_ROWS = 2048
_SCORE_BYTES = 64 << 20
# Share of a round's mini-batches that tells the loss at its start and at its end.
_EDGE = 0.1


@dataclass
class LocalResult:
    """What ``train_locally`` leaves behind.

    Parameters
    ----------
    state : ndarray, shape (1 + buffers, P), float32
        The trained ``theta`` and, if they are averaged, the solver's buffers.
    weight : float
        Sum of the weights of the rows seen, repeats counted.
    n_rows, n_steps, n_skipped : int
        Rows seen, steps taken, steps skipped because their gradient was not finite.
    loss_sum : float
        Weighted sum of the rows' losses as they were seen, before each step.
    first, last : LossSum
        Of the first and the last tenth of the mini-batches.
    """

    state: Float32Array
    weight: float = 0.0
    n_rows: int = 0
    n_steps: int = 0
    n_skipped: int = 0
    loss_sum: float = 0.0
    first: LossSum = NO_LOSS
    last: LossSum = NO_LOSS

    def note(self, n_rows: int, weight: float, loss: float, *, first: bool, last: bool) -> None:
        """Count a mini-batch that was learned from."""
        self.loss_sum += loss
        self.weight += weight
        self.n_rows += n_rows
        if first:
            self.first = self.first.plus(loss, weight)
        if last:
            self.last = self.last.plus(loss, weight)


def train_locally(job: Job, rows: Rows, round_: int, partition: int) -> LocalResult:
    """Train ``job`` on one worker's rows for one round; a pure function of its arguments.

    Parameters
    ----------
    job : Job
        Its state is read only.
    rows : Rows
    round_, partition : int
        With the plan's seed they decide every random choice.

    Returns
    -------
    LocalResult
        Without a step if there is no row of positive weight.

    Notes
    -----
    The inner loop of training by model averaging: Su and Chen, arXiv:1507.01239, section 2.
    """
    plan = job.plan
    network, solver, schedule = plan.network, SOLVERS[plan.solver], SCHEDULES[plan.schedule]
    rng = random_stream(plan.seed, round_ + job.ahead, partition)

    averaged = plan.local_state == "average"
    vectors = np.empty((2 + solver.n_buffers, network.n_params), dtype=np.float32)
    theta, buffers, gradient = vectors[0], vectors[1:-1], vectors[-1]
    theta[...] = job.state[0]
    buffers[...] = job.state[1:] if averaged else 0
    if averaged:
        solver.unpack(buffers)
    steps_before = job.n_steps if averaged else 0.0

    blocks, gradient_blocks = network.blocks(theta), network.blocks(gradient)
    passes = Backprop(network, min(plan.batch_size, rows.n_rows), dropout=plan.dropout, rng=rng)
    precondition = NaturalGradient(network.layers) if solver.natural else None
    first_stint = round_ + job.ahead
    stints = range(first_stint, first_stint + job.n_stints)
    n_planned = [count_batches(rows, plan, stint) for stint in stints]
    n_all = sum(n_planned)
    edge = max(1, round(_EDGE * n_all))

    result = LocalResult(state=job.state)
    number = 0
    for stint, n_batches in zip(stints, n_planned, strict=True):
        if stint > first_stint:
            rng = passes.rng = random_stream(plan.seed, stint, partition)
        typical = mean_weight(rows, plan, stint)
        for turn, (X, y, sample_weight) in enumerate(batches(rows, plan, stint, rng)):
            number += 1
            weight = float(sample_weight.sum(dtype=np.float64))
            if weight <= 0:
                continue
            progress = (stint + (turn + 0.5) / n_batches) / plan.max_iter
            step_size = plan.step_size * job.step_factor * schedule(min(progress, 1.0))
            # Weights count against the mean weight: against the batch's own, a rare row of weight
            # 100 would count as much as a batch of rows of weight 1. And float32 has limits.
            scale = -step_size if solver.scaled else 1.0
            loss = passes.gradient(
                blocks,
                X,
                y,
                sample_weight / typical,
                gradient_blocks,
                scale=scale / len(X),
                precondition=precondition,
            )
            if plan.l2 and not solver.decoupled_l2:
                # The gradient of l2 / 2 ||W||^2; biases are free.
                for block, block_gradient in zip(blocks, gradient_blocks, strict=True):
                    block_gradient[:-1] += (scale * plan.l2) * block[:-1]
            if not _guard(gradient, plan.max_change if solver.scaled else 0.0):
                result.n_skipped += 1
                continue
            first, last = number <= edge, number > n_all - edge
            result.note(len(X), weight, loss * typical, first=first, last=last)
            if plan.l2 and solver.decoupled_l2:
                for block in blocks:
                    block[:-1] *= 1 - step_size * plan.l2
            result.n_steps += 1
            n_steps = steps_before + result.n_steps
            solver.update(theta, gradient, buffers, step_size, plan.momentum, n_steps)

    if averaged:
        solver.pack(buffers)
    result.state = vectors[:-1] if averaged else vectors[:1]
    return result


def _guard(step: FloatArray, max_change: float) -> bool:
    """Shorten a step to norm ``max_change``, in place; False if its square is not finite."""
    square = float(np.dot(step, step))
    if not np.isfinite(square):
        return False
    if max_change and square > max_change * max_change:
        step *= max_change / np.sqrt(square)
    return True


def score(job: Job, rows: Rows) -> Score:
    """Sums over a worker's validation rows: loss, right answers or squared error, and weight."""
    plan, network = job.plan, job.plan.network
    loss_sum = hit_sum = weight_sum = 0.0
    most = min(_SCORE_ROWS, rows.n_rows, max(1, _SCORE_BYTES // (4 * max(rows.n_features, 1))))
    out = np.empty((most, rows.n_features), dtype=np.float32)
    for start, stop in windows(0, rows.n_rows, row_bytes(rows), most):
        n = stop - start
        for X, y, weight in fetch(rows.read(start, stop), np.arange(n), -(-n // most), out, plan):
            logits = network.logits(job.state[0], X)
            loss_sum += float(
                np.dot(network.objective.values(logits, y).astype(np.float64), weight)
            )
            hit_sum += float(np.dot(network.objective.hits(logits, y).astype(np.float64), weight))
            weight_sum += float(weight.sum(dtype=np.float64))
    return Score(loss_sum, hit_sum, weight_sum, rows.n_rows)


def work(
    jobs: Sequence[Job],
    rows: Rows,
    validation: Rows,
    round_: int,
    partition: int,
    unit: float,
) -> list[Total]:
    """What a worker does in a round: for every job, score what arrived, then train it.

    The averaged network of round r is scored by the tasks of round r + 1, at no extra job.
    ``unit`` is ``weight_unit`` of all workers' training rows.
    """
    totals = []
    # A diverging worker is a fact to report, not a warning for its log.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for job in jobs:
            scored = score(job, validation) if validation.n_rows else None
            if not job.train or rows.n_rows == 0:
                totals.append(Total.of(None, Report(partition, score=scored)))
                continue
            started = time.perf_counter()
            result = train_locally(job, rows, round_, partition)
            move = result.state[0].astype(np.float64) - job.state[0]
            report = Report(
                partition,
                weight=result.weight,
                n_rows=result.n_rows,
                n_steps=result.n_steps,
                n_skipped=result.n_skipped,
                loss_sum=result.loss_sum,
                first=result.first,
                last=result.last,
                squared_move=float(np.dot(move, move)),
                seconds=time.perf_counter() - started,
                score=scored,
                left_out="not finite" if result.n_skipped and not result.n_steps else "",
                share=result.weight / (job.plan.local_epochs * job.n_stints * unit),
            )
            totals.append(Total.of(result.state, report))
    return totals
