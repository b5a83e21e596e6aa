"""Rows of weights of which a step touches a few: what the others miss, they catch up on.

A step costs what it touches. A row that it leaves alone is brought up to date when it is touched
again, or when the round ends:

- ``sgd``, ``momentum`` and ``ngsgd``: exactly. Over steps without a gradient, a weight and its
  velocity move by a linear map, the same for all rows untouched since the same step. The L2 penalty
  is part of that map; only the norm that ``max_change`` looks at does not see the untouched rows'.
- ``adam`` and ``adamw``: LazyAdam. A row's moments and its bias corrections count the steps that
  touch it; in dense Adam, a row goes on moving while its moments decay. The penalty of ``adamw``,
  which is decoupled, is caught up on exactly; that of ``adam`` is in the touched rows' gradient.

No buffer outlives the round: what is left of a velocity is spent at its end, all at once. That is
as accurate as averaging velocities over workers, and halves what is sent.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sparknn.core.nn.input_layer import SparseBatch
from sparknn.core.nn.solvers import BETA_2, EPSILON, Solver
from sparknn.core.types import FloatArray, IntArray

# Steps after which all rows are brought up to date: the maps that are kept stay few.
_MOST_STEPS = 4096
# What is left of a velocity below this share of it is 0.
_NOTHING = 1e-12
# Rows brought up to date at a time.
_ROWS = 1 << 14


class RowRule(Protocol):
    """What a solver does to rows; it keeps its buffers and when each row was touched last."""

    def catch_up(self, at: IntArray | slice, W: FloatArray) -> None:
        """Bring ``W``, the weights of the rows ``at``, to the present step, in place."""

    def step(
        self, at: IntArray, W: FloatArray, gradient: FloatArray, step_size: float, decay: float
    ) -> None:
        """Take a step with the rows that ``catch_up`` was last called for.

        ``decay`` is the share of a weight that the L2 penalty takes in this step.
        """

    def settle(self, at: slice, W: FloatArray) -> None:
        """Store that rows are up to date as ``W``; then ``restart``."""

    def restart(self) -> None:
        """Count steps from 0 again: all rows are up to date."""

    def spend(self, at: slice, W: FloatArray) -> None:
        """Let rows make the rest of their way."""

    n: int


class _Linear:
    """Steps v = momentum v + gradient; W + v, where the gradient is scaled by -step_size.

    Without a gradient, and with decay e: W <- (1 - e) W + momentum v; v <- -e W + momentum v.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype, momentum: float, l2: float) -> None:
        self._momentum = momentum
        self._V = np.zeros(shape, dtype=dtype)
        self._now: FloatArray = self._V[:0]
        self._last = np.zeros(shape[0], dtype=np.int32)
        self.n = 0
        # Row j: what the steps after the j-th make of (W, v).
        self._maps = np.zeros((4, _MOST_STEPS + 1)) if l2 else None
        powers = momentum ** np.arange(_MOST_STEPS + 1)
        # What is nothing beside a weight would make velocities below 1e-38, with which processors
        # are slow: rounds took three times as long.
        powers[powers < _NOTHING] = 0
        self._powers = powers.astype(dtype)
        self._reach = (momentum * (1 - powers) / (1 - momentum)).astype(dtype)
        self.restart()

    def restart(self) -> None:
        self.n = 0
        self._last[:] = 0
        if self._maps is not None:
            self._maps[:, 0] = 1, 0, 0, 1

    def catch_up(self, at: IntArray | slice, W: FloatArray) -> None:
        V = self._now = self._V[at].copy() if isinstance(at, slice) else self._V[at]
        if self._maps is None:
            missed = self.n - self._last[at]
            W += V * self._reach[missed][:, None]
            V *= self._powers[missed][:, None]
            return
        a, b, c, d = self._maps[:, self._last[at], None].astype(W.dtype)
        before = W.copy()
        W *= a
        W += b * V
        V *= d
        V += c * before

    def step(
        self, at: IntArray, W: FloatArray, gradient: FloatArray, step_size: float, decay: float
    ) -> None:
        V = self._now
        V *= self._momentum
        V += gradient
        W += V
        self._V[at] = V
        self.n += 1
        self._last[at] = self.n
        if self._maps is not None:
            a, b, c, d = self._maps[:, : self.n]
            for of_weight, of_velocity in ((a, c), (b, d)):
                of_velocity *= self._momentum
                of_velocity -= decay * of_weight
                of_weight += of_velocity
            self._maps[:, self.n] = 1, 0, 0, 1

    def settle(self, at: slice, W: FloatArray) -> None:
        self._V[at] = self._now

    def spend(self, at: slice, W: FloatArray) -> None:
        W += self._V[at] * W.dtype.type(self._momentum / (1 - self._momentum))


class _LazyAdam:
    """Adam for the steps that touch a row (Kingma and Ba, arXiv:1412.6980, algorithm 1)."""

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype, momentum: float, *, decoupled: bool
    ) -> None:
        self._momentum, self._decoupled = momentum, decoupled
        self._first, self._second = np.zeros((2, *shape), dtype=dtype)
        self._n_touched = np.zeros(shape[0], dtype=np.int32)
        self._last = np.zeros(shape[0], dtype=np.int32)
        self.n = 0
        # Logarithm of what the penalty leaves of a weight over so many steps.
        self._left = np.zeros(_MOST_STEPS + 1)

    def restart(self) -> None:
        self.n = 0
        self._last[:] = 0

    def catch_up(self, at: IntArray | slice, W: FloatArray) -> None:
        if self._decoupled:
            left = np.exp(self._left[self.n] - self._left[self._last[at]])
            W *= left.astype(W.dtype)[:, None]

    def step(
        self, at: IntArray, W: FloatArray, gradient: FloatArray, step_size: float, decay: float
    ) -> None:
        momentum = self._momentum
        first, second = self._first[at], self._second[at]
        self._n_touched[at] += 1
        first *= momentum
        first += (1 - momentum) * gradient
        second *= BETA_2
        second += (1 - BETA_2) * np.square(gradient)
        self._first[at], self._second[at] = first, second
        n = self._n_touched[at].astype(np.float64)[:, None]
        step = np.sqrt(second)
        step *= (1 / np.sqrt(1 - BETA_2**n)).astype(W.dtype)
        step += EPSILON
        np.divide(first, step, out=step)
        step *= (step_size / (1 - momentum**n)).astype(W.dtype)
        if self._decoupled:
            W *= 1 - decay
        W -= step
        self.n += 1
        self._last[at] = self.n
        self._left[self.n] = self._left[self.n - 1] + (np.log1p(-decay) if decay < 1 else -np.inf)

    def settle(self, at: slice, W: FloatArray) -> None:
        pass

    def spend(self, at: slice, W: FloatArray) -> None:
        pass


def rule_of(
    solver: Solver, shape: tuple[int, int], dtype: np.dtype, momentum: float, l2: float
) -> RowRule:
    """What a solver does to rows."""
    if solver.adaptive:
        return _LazyAdam(shape, dtype, momentum, decoupled=solver.decoupled_l2)
    return _Linear(shape, dtype, momentum if solver.n_buffers else 0.0, l2)


class TrainedRows:
    """The weights of sparse rows' columns while a network learns: an ``InputBlock``.

    Parameters
    ----------
    W : ndarray, shape (t, h)
        Overwritten. Batches number its rows.
    rule : RowRule
    """

    def __init__(self, W: FloatArray, rule: RowRule) -> None:
        self.W = W
        self._rule = rule
        self._batch = SparseBatch(np.empty(0, np.intp), [])
        self._now = self.gradient = W[:0]

    def start(self, batch: SparseBatch) -> None:
        """Bring the rows that a mini-batch touches up to date."""
        self._batch = batch
        self._now = self.W[batch.columns]
        self._rule.catch_up(batch.columns, self._now)
        self.gradient = np.empty_like(self._now)

    def add_to(self, Z: FloatArray) -> None:
        self._batch.add_to(Z, self._now)

    def backward(self, dZ: FloatArray) -> None:
        self._batch.gradient(dZ, self.gradient)

    def penalise(self, factor: float) -> None:
        """Add ``factor`` times the weights to the gradient."""
        self.gradient += self.gradient.dtype.type(factor) * self._now

    def step(self, step_size: float, decay: float) -> None:
        """Take a step; see ``RowRule``."""
        at = self._batch.columns
        self._rule.step(at, self._now, self.gradient, step_size, decay)
        self.W[at] = self._now
        if self._rule.n == _MOST_STEPS:
            self.catch_up()

    def catch_up(self, *, spend: bool = False) -> None:
        """Bring all rows up to date; with ``spend``, to where their velocity would take them."""
        for start in range(0, len(self.W), _ROWS):
            at = slice(start, start + _ROWS)
            self._rule.catch_up(at, self.W[at])
            self._rule.settle(at, self.W[at])
            if spend:
                self._rule.spend(at, self.W[at])
        self._rule.restart()
