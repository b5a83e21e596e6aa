"""Train one network on one worker for one round: a solver step per mini-batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sparknn.core.config import RoundRequest
from sparknn.core.data.batches import Batch, rng_for
from sparknn.core.nn.natural_gradient import RANK_IN, RANK_OUT, NaturalGradient
from sparknn.core.nn.network import Backprop
from sparknn.core.nn.row_solvers import TrainedRows, rule_of
from sparknn.core.nn.schedules import SCHEDULES
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.aggregation import NO_LOSS, LossSum
from sparknn.core.types import Float32Array, FloatArray, IntArray

# Random stream of dropout, besides the one that draws the mini-batches.
_DROPOUT_STREAM = 1


class ScheduledBatch(NamedTuple):
    """The rows of one step, and the step's position in the fit.

    Parameters
    ----------
    rows : Batch
        Weights are divided by ``mean_weight``. A batch of total weight 0 is skipped.
    mean_weight : float
        Mean weight of the rows that the round draws.
    unit : int
        Its unit of local work (see ``round_length``).
    time : float
        Units of local work from the start of the fit to the middle of this step.
    first, last : bool
        Whether the batch counts for the loss at the start, or at the end, of the round.
    """

    rows: Batch
    mean_weight: float
    unit: int
    time: float
    first: bool
    last: bool


@dataclass
class LocalResult:
    """The result of a round of local training.

    Parameters
    ----------
    state : ndarray, shape (1 + buffers, P), float32
        The trained ``theta`` and, if they are averaged, the solver's buffers.
    weight : float
        Sum of the weights of the rows seen, repeats counted.
    n_rows, n_steps, n_skipped : int
        Rows used, steps taken, steps skipped because the gradient was not finite.
    loss_sum : float
        Weighted sum of the rows' losses, each before its step.
    first, last : LossSum
        Losses over the first and the last tenth of the mini-batches.
    seconds : float
        Training time.
    rows : ndarray, shape (t, h), float32, optional
        Trained weights of the sparse block's ``columns``.
    columns : ndarray, shape (t,), optional
    """

    state: Float32Array
    weight: float = 0.0
    n_rows: int = 0
    n_steps: int = 0
    n_skipped: int = 0
    loss_sum: float = 0.0
    first: LossSum = NO_LOSS
    last: LossSum = NO_LOSS
    seconds: float = 0.0
    rows: Float32Array | None = None
    columns: IntArray | None = None

    def record(self, batch: ScheduledBatch, loss: float) -> None:
        """Count a step."""
        self.n_steps += 1
        self.loss_sum += loss
        weight = batch.rows.weight
        self.weight += weight
        self.n_rows += len(batch.rows.X)
        if batch.first:
            self.first = self.first.plus(loss, weight)
        if batch.last:
            self.last = self.last.plus(loss, weight)


class LocalTrainer:
    """Trains one network; the local trainer of federated averaging.

    Parameters
    ----------
    request : RoundRequest
        Its state is read only.
    n_rows : int
        Size of the largest mini-batch.
    partition : int
    gradient : ndarray, shape (at least P,), float32
        Scratch memory; trainers that run in turn may share it.
    touched : ndarray, optional
        Columns of the sparse block that the round touches, in the order of the batches' numbers.
    """

    def __init__(
        self,
        request: RoundRequest,
        n_rows: int,
        partition: int,
        gradient: Float32Array,
        touched: IntArray | None = None,
    ) -> None:
        config = request.config
        network, solver = config.input_layer.dense, SOLVERS[config.solver]
        self._request, self._partition, self._solver = request, partition, solver
        self._averaged = config.local_state == "average"
        self._l2 = config.l2 * request.penalty_factor
        vectors = np.empty((1 + solver.n_buffers, network.n_params), dtype=np.float32)
        self._theta, self._buffers = vectors[0], vectors[1:]
        self._theta[...] = request.state[0]
        self._buffers[...] = request.state[1:] if self._averaged else 0
        if self._averaged:
            solver.unpack(self._buffers)
        self._steps_before = request.n_steps if self._averaged else 0.0
        self._gradient = gradient[: network.n_params]
        self._blocks = network.blocks(self._theta)
        self._gradient_blocks = network.blocks(self._gradient)
        self._backprop = Backprop(network, n_rows, dropout=config.dropout)
        self._precondition = NaturalGradient(network.layers) if solver.natural else None
        self._rows = None
        if touched is not None:
            assert request.rows is not None
            W = request.rows[touched]
            rule = rule_of(solver, W.shape, W.dtype, config.momentum, self._l2)
            self._rows = TrainedRows(W, rule)
        self._unit = -1
        self.result = LocalResult(state=vectors if self._averaged else vectors[:1])

    def train(self, batches: Iterable[ScheduledBatch]) -> None:
        """Take a step per mini-batch; skip those of weight 0 or with a non-finite gradient."""
        config, solver, result = self._request.config, self._solver, self.result
        theta, gradient, blocks = self._theta, self._gradient, self._blocks
        gradient_blocks, backprop, rows = self._gradient_blocks, self._backprop, self._rows
        peak, schedule = config.step_size * self._request.step_factor, SCHEDULES[config.schedule]
        l2 = self._l2
        max_change = config.max_change if solver.scaled else 0.0
        for batch in batches:
            X, y, sample_weight, weight, label_index, sparse = batch.rows
            if weight <= 0:
                continue
            if config.dropout and batch.unit > self._unit:
                # The stream belongs to the unit of local work, whichever round it falls in.
                self._unit = batch.unit
                backprop.rng = rng_for(config.seed, batch.unit, self._partition, _DROPOUT_STREAM)
            step_size = peak * schedule(min(batch.time / config.max_iter, 1.0))
            scale = -step_size if solver.scaled else 1.0
            if rows is not None and sparse is not None:
                rows.start(sparse)
            loss = backprop.gradient(
                blocks,
                X,
                y,
                sample_weight,
                gradient_blocks,
                scale / len(X),
                self._precondition,
                label_index,
                rows,
            )
            if l2 and not solver.decoupled_l2:
                # The gradient of l2 / 2 ||W||^2; biases are free.
                for (W, _, _), (dW, _, _) in zip(blocks, gradient_blocks, strict=True):
                    dW += (scale * l2) * W
                if rows is not None:
                    rows.penalise(scale * l2)
            clipping = _clip_norm(gradient, max_change, None if rows is None else rows.gradient)
            if not clipping:
                result.n_skipped += 1
                continue
            result.record(batch, loss * batch.mean_weight)
            if l2 and solver.decoupled_l2:
                for W, _, _ in blocks:
                    W *= 1 - step_size * l2
            if rows is not None:
                rows.step(step_size, clipping * step_size * l2)
            n_steps = self._steps_before + result.n_steps
            solver.update(theta, gradient, self._buffers, step_size, config.momentum, n_steps)

    def finish(self) -> LocalResult:
        """Return the result, its buffers ready to be averaged; do not train afterwards."""
        if self._averaged:
            self._solver.pack(self._buffers)
        if self._rows is not None:
            self._rows.catch_up(spend=True)
            self.result.rows = self._rows.W
        return self.result


def working_bytes(request: RoundRequest, n_rows: int) -> int:
    """Estimate a trainer's memory besides its state, for mini-batches of ``n_rows``."""
    layers = request.config.input_layer.dense.layers
    # Z, A and dA.
    n = 3 * n_rows * sum(layers[1:])
    if SOLVERS[request.config.solver].natural:
        for n_in, n_out in pairwise(layers):
            # [A, 1] and both results; R, in float64, and W of either side.
            n += n_rows * (2 * n_in + n_out) + 3 * (RANK_IN * n_in + RANK_OUT * n_out)
    return 4 * n


def _clip_norm(step: FloatArray, max_change: float, rows: FloatArray | None = None) -> float:
    """Clip a step to norm ``max_change`` (0: no limit) in place and return the factor.

    ``rows`` is the sparse block's part of the step. A step that is not finite stays as it is; its
    factor is 0.
    """
    square = float(np.dot(step, step))
    if rows is not None:
        flat = rows.reshape(-1)
        square += float(np.dot(flat, flat))
    if not math.isfinite(square):
        return 0.0
    factor = 1.0
    if max_change and square > max_change * max_change:
        factor = max_change / math.sqrt(square)
        step *= factor
        if rows is not None:
            rows *= factor
    return factor
