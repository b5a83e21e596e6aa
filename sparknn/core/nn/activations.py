"""Activation functions of the hidden layers, each with its derivative.

An activation is a pair of functions on a whole layer, shape (n, units):

- ``forward(Z, A)`` writes f(Z) into ``A`` (which is ``Z`` itself unless ``keeps_input``);
- ``backward(dA, Z, A)`` turns ``dA``, the gradient for f(Z), into the gradient for Z, in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparknn.core.types import FloatArray

Forward = Callable[[FloatArray, FloatArray], None]
Backward = Callable[[FloatArray, FloatArray, FloatArray], None]


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Parameters
    ----------
    forward, backward : callable
        See the module docstring.
    keeps_input : bool
        Whether ``backward`` reads ``Z``. If not, ``Z`` and ``A`` may share memory.
    gain : float
        Variance of initial weights, times the fan: 2 for He's initialisation (arXiv:1502.01852,
        eq. 10), 1 for Glorot's.
    """

    forward: Forward
    backward: Backward
    keeps_input: bool
    gain: float


def _relu(Z: FloatArray, A: FloatArray) -> None:
    # A row of zeros, as numpy has no fast loop for the maximum of an array and a scalar.
    np.maximum(Z, np.zeros(Z.shape[-1], Z.dtype), out=A)


def _relu_backward(dA: FloatArray, Z: FloatArray, A: FloatArray) -> None:
    dA *= A > 0


def _tanh(Z: FloatArray, A: FloatArray) -> None:
    np.tanh(Z, out=A)


def _tanh_backward(dA: FloatArray, Z: FloatArray, A: FloatArray) -> None:
    dA *= 1 - A * A


def _sigmoid(Z: FloatArray, A: FloatArray) -> None:
    # tanh saturates where exp would overflow: sigmoid(z) = (1 + tanh(z / 2)) / 2.
    np.multiply(Z, 0.5, out=A)
    np.tanh(A, out=A)
    A += 1
    A *= 0.5


def _sigmoid_backward(dA: FloatArray, Z: FloatArray, A: FloatArray) -> None:
    dA *= A * (1 - A)


GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715
# For larger |z| the tanh is 1 to the last bit; clipping keeps the cube from overflowing.
_GELU_FLAT = 10


def _gelu_inner(Z: FloatArray) -> FloatArray:
    Z = np.clip(Z, -_GELU_FLAT, _GELU_FLAT)
    return np.tanh(GELU_SCALE * (Z + GELU_CUBIC * Z * Z * Z))


def _gelu(Z: FloatArray, A: FloatArray) -> None:
    """Hendrycks and Gimpel, arXiv:1606.08415, section 2: the approximation by tanh."""
    np.multiply(0.5 * Z, 1 + _gelu_inner(Z), out=A)


def _gelu_backward(dA: FloatArray, Z: FloatArray, A: FloatArray) -> None:
    inner = _gelu_inner(Z)
    Z = np.clip(Z, -_GELU_FLAT, _GELU_FLAT)
    slope = GELU_SCALE * (1 + 3 * GELU_CUBIC * Z * Z)
    dA *= 0.5 * (1 + inner) + 0.5 * Z * (1 - inner * inner) * slope


def _identity(Z: FloatArray, A: FloatArray) -> None:
    if A is not Z:
        A[...] = Z


def _identity_backward(dA: FloatArray, Z: FloatArray, A: FloatArray) -> None:
    pass


ACTIVATIONS = {
    "relu": Activation(_relu, _relu_backward, keeps_input=False, gain=2.0),
    "tanh": Activation(_tanh, _tanh_backward, keeps_input=False, gain=1.0),
    "sigmoid": Activation(_sigmoid, _sigmoid_backward, keeps_input=False, gain=1.0),
    "gelu": Activation(_gelu, _gelu_backward, keeps_input=True, gain=2.0),
    "identity": Activation(_identity, _identity_backward, keeps_input=False, gain=1.0),
}
