"""One network in one round of one worker: it takes a step for every mini-batch it is shown."""

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
from sparknn.core.nn.schedules import SCHEDULES
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.aggregation import NO_LOSS, LossSum
from sparknn.core.types import Float32Array, FloatArray

# Of the random numbers that belong to a round and a partition, those that dropout draws.
_DROPOUT_STREAM = 1


class ScheduledBatch(NamedTuple):
    """Rows to learn from in one step, if they have any weight, and where in the fit that step is.

    Parameters
    ----------
    rows : Batch
        Weights are divided by the mean weight of the rows that the round draws.
    mean_weight : float
        What they were divided by.
    stint : int
        The stint (see ``period``) that it belongs to.
    time : float
        Stints from the beginning of the fit to the middle of this step.
    first, last : bool
        Whether it is of the mini-batches that tell the loss at the round's start and at its end.
    """

    rows: Batch
    mean_weight: float
    unit: int
    time: float
    first: bool
    last: bool


@dataclass
class LocalResult:
    """What a network leaves behind that has learned for a round.

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
    seconds : float
        Spent on it.
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

    def note(self, batch: ScheduledBatch, loss: float) -> None:
        """Count a mini-batch that is learned from."""
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
    """A job's network while it learns.

    Parameters
    ----------
    request : RoundRequest
        Its state is read only.
    n_rows : int
        Of a mini-batch, at most.
    partition : int
    gradient : ndarray, shape (at least P,), float32
        Scratch; learners that take their steps in turn may share it.
    """

    def __init__(
        self, request: RoundRequest, n_rows: int, partition: int, gradient: Float32Array
    ) -> None:
        config = request.config
        network, solver = config.network, SOLVERS[config.solver]
        self._job, self._partition, self._solver = request, partition, solver
        self._averaged = config.local_state == "average"
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
        self._passes = Backprop(network, n_rows, dropout=config.dropout)
        self._precondition = NaturalGradient(network.layers) if solver.natural else None
        self._unit = -1
        self.result = LocalResult(state=vectors if self._averaged else vectors[:1])

    def learn(self, batches: Iterable[ScheduledBatch]) -> None:
        """Take a step for each that has any weight, unless its gradient is not finite."""
        config, solver, result = self._job.config, self._solver, self.result
        theta, gradient, blocks = self._theta, self._gradient, self._blocks
        gradient_blocks, passes = self._gradient_blocks, self._passes
        peak, schedule = config.step_size * self._job.step_factor, SCHEDULES[config.schedule]
        max_change = config.max_change if solver.scaled else 0.0
        for batch in batches:
            X, y, sample_weight, weight, label_index = batch.rows
            if weight <= 0:
                continue
            if config.dropout and batch.unit > self._unit:
                # Its random numbers are those of the stint, whichever round that is in.
                self._unit = batch.unit
                passes.rng = rng_for(config.seed, batch.unit, self._partition, _DROPOUT_STREAM)
            step_size = peak * schedule(min(batch.time / config.max_iter, 1.0))
            scale = -step_size if solver.scaled else 1.0
            loss = passes.gradient(
                blocks,
                X,
                y,
                sample_weight,
                gradient_blocks,
                scale / len(X),
                self._precondition,
                label_index,
            )
            if config.l2 and not solver.decoupled_l2:
                # The gradient of l2 / 2 ||W||^2; biases are free.
                for (W, _, _), (dW, _, _) in zip(blocks, gradient_blocks, strict=True):
                    dW += (scale * config.l2) * W
            if not _guard(gradient, max_change):
                result.n_skipped += 1
                continue
            result.note(batch, loss * batch.mean_weight)
            if config.l2 and solver.decoupled_l2:
                for W, _, _ in blocks:
                    W *= 1 - step_size * config.l2
            n_steps = self._steps_before + result.n_steps
            solver.update(theta, gradient, self._buffers, step_size, config.momentum, n_steps)

    def finish(self) -> LocalResult:
        """What it has learned; it learns no more."""
        if self._averaged:
            self._solver.pack(self._buffers)
        return self.result


def working_bytes(request: RoundRequest, n_rows: int) -> int:
    """About what a learner holds besides its state, for mini-batches of ``n_rows``."""
    layers = request.config.network.layers
    # Z, A and dA.
    n = 3 * n_rows * sum(layers[1:])
    if SOLVERS[request.config.solver].natural:
        for n_in, n_out in pairwise(layers):
            # [A, 1] and both results; R, in float64, and W of either side.
            n += n_rows * (2 * n_in + n_out) + 3 * (RANK_IN * n_in + RANK_OUT * n_out)
    return 4 * n


def _guard(step: FloatArray, max_change: float) -> bool:
    """Shorten a step to norm ``max_change``, in place; False if its square is not finite."""
    square = float(np.dot(step, step))
    if not math.isfinite(square):
        return False
    if max_change and square > max_change * max_change:
        step *= max_change / math.sqrt(square)
    return True
