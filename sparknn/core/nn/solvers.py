"""Local solvers: turn a mini-batch's gradient into a step, in place on ``theta``.

A solver declares how many buffers of theta's length it keeps, and updates ``theta`` and buffers.
If ``scaled``, its gradient is already multiplied by ``-step_size``: the factor is applied to the
few derivatives at the network's outputs, which saves a pass over ``theta``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparknn.core.types import FloatArray

Update = Callable[[FloatArray, FloatArray, FloatArray, float, float, float], None]


@dataclass(frozen=True)
class Solver:
    """One local solver.

    Parameters
    ----------
    update : callable
        ``(theta, gradient, buffers, step_size, momentum, n_steps) -> None``; ``gradient`` may be
        overwritten, ``buffers`` has shape (n_buffers, P), ``n_steps`` counts this step.
    n_buffers : int
    scaled : bool
        Whether ``update`` expects the gradient multiplied by ``-step_size``.
    decoupled_l2 : bool
        Whether the L2 penalty shrinks the weights directly instead of entering the gradient.
    natural : bool
        Whether each layer's gradient is preconditioned (see ``natural_gradient``).
    rms_buffer : int, optional
        A buffer of squares. Its root is averaged: averages of small squares would round to 0.
    adaptive : bool
        Whether every weight has its own step size, as in Adam.
    """

    update: Update
    n_buffers: int
    scaled: bool = True
    decoupled_l2: bool = False
    natural: bool = False
    rms_buffer: int | None = None
    adaptive: bool = False

    def pack(self, buffers: FloatArray) -> None:
        """Prepare the buffers for averaging, in place."""
        if self.rms_buffer is not None:
            np.sqrt(buffers[self.rms_buffer], out=buffers[self.rms_buffer])

    def unpack(self, buffers: FloatArray) -> None:
        """Undo ``pack``, in place."""
        if self.rms_buffer is not None:
            np.square(buffers[self.rms_buffer], out=buffers[self.rms_buffer])


def _sgd(
    theta: FloatArray,
    gradient: FloatArray,
    buffers: FloatArray,
    step_size: float,
    momentum: float,
    n_steps: float,
) -> None:
    theta += gradient


def _momentum(
    theta: FloatArray,
    gradient: FloatArray,
    buffers: FloatArray,
    step_size: float,
    momentum: float,
    n_steps: float,
) -> None:
    """v = momentum v - step_size g; theta + v (Sutskever et al. 2013, eq. 1 and 2)."""
    velocity = buffers[0]
    velocity *= momentum
    velocity += gradient
    theta += velocity


BETA_2 = 0.999
EPSILON = 1e-8


def _adam(
    theta: FloatArray,
    gradient: FloatArray,
    buffers: FloatArray,
    step_size: float,
    momentum: float,
    n_steps: float,
) -> None:
    """Adam with its bias corrections (Kingma and Ba, arXiv:1412.6980, algorithm 1)."""
    first, second = buffers
    first *= momentum
    first += (1 - momentum) * gradient
    second *= BETA_2
    np.square(gradient, out=gradient)
    gradient *= 1 - BETA_2
    second += gradient
    step = np.sqrt(second, out=gradient)
    step *= 1 / np.sqrt(1 - BETA_2**n_steps)
    step += EPSILON
    np.divide(first, step, out=step)
    step *= step_size / (1 - momentum**n_steps)
    theta -= step


SOLVERS = {
    "sgd": Solver(_sgd, n_buffers=0),
    "momentum": Solver(_momentum, n_buffers=1),
    "adam": Solver(_adam, n_buffers=2, scaled=False, rms_buffer=1, adaptive=True),
    # Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.
    "adamw": Solver(
        _adam, n_buffers=2, scaled=False, rms_buffer=1, adaptive=True, decoupled_l2=True
    ),
    "ngsgd": Solver(_momentum, n_buffers=1, natural=True),
}
