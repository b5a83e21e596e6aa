"""Averaging rules: from the workers' mean to the network of the next round, on the driver.

Notation: x the network, D = mean - broadcast the mean displacement, u the velocity (a decaying sum
of displacements), b the momentum, a the rate, K the number of workers. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparknn.core.types import Float32Array, Float64Array, FloatArray


@dataclass(frozen=True)
class AveragingState:
    """The driver's state between rounds.

    Parameters
    ----------
    theta : ndarray, shape (P,), float32
        The network x.
    broadcast : ndarray, shape (P,), float32
        Where the workers start: x, except in ``bmuf``.
    running : ndarray, shape (P,), float64
        u.
    """

    theta: Float32Array
    broadcast: Float32Array
    running: Float64Array

    @classmethod
    def start(cls, theta: Float32Array) -> AveragingState:
        return cls(theta, theta, np.zeros(theta.shape))


Rule = Callable[[AveragingState, FloatArray, float, float, int], AveragingState]


def mean(
    state: AveragingState, average: FloatArray, momentum: float, rate: float, n_workers: int
) -> AveragingState:
    """x = mean (McMahan et al., arXiv:1602.05629). Keeps one worker's network to the byte."""
    theta = average.astype(np.float32)
    return AveragingState(theta, theta, state.running)


def _displacement(state: AveragingState, average: FloatArray) -> Float64Array:
    return average.astype(np.float64) - state.broadcast


def _moved(state: AveragingState, by: Float64Array, running: Float64Array) -> AveragingState:
    theta = (state.theta + by).astype(np.float32)
    return AveragingState(theta, theta, running)


def momentum(
    state: AveragingState, average: FloatArray, momentum: float, rate: float, n_workers: int
) -> AveragingState:
    """u = b u + D; x + a u (SlowMo: Wang et al., arXiv:1910.00643, algorithm 1)."""
    running = momentum * state.running + _displacement(state, average)
    return _moved(state, rate * running, running)


def nesterov(
    state: AveragingState, average: FloatArray, momentum: float, rate: float, n_workers: int
) -> AveragingState:
    """u = b u + D; x + a (b u + D) (DiLoCo: Douillard et al., arXiv:2311.08105, section 2)."""
    D = _displacement(state, average)
    running = momentum * state.running + D
    return _moved(state, rate * (momentum * running + D), running)


def bmuf(
    state: AveragingState, average: FloatArray, momentum: float, rate: float, n_workers: int
) -> AveragingState:
    """u = b u + (1 - b) K a D; x + u; the workers start from x + b u.

    Chen and Huo 2016, "Scalable training of deep learning machines by incremental block training
    with intra-block parallel optimization and blockwise model-update filtering", eq. 3 to 6.
    """
    gain = (1 - momentum) * n_workers * rate
    running = momentum * state.running + gain * _displacement(state, average)
    moved = _moved(state, running, running)
    ahead = (moved.theta + momentum * running).astype(np.float32)
    return AveragingState(moved.theta, ahead, running)


AVERAGING_RULES: dict[str, Rule] = {
    "mean": mean,
    "momentum": momentum,
    "nesterov": nesterov,
    "bmuf": bmuf,
}
