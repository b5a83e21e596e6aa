"""Natural-gradient SGD: gradients multiplied by an estimate of the inverse Fisher matrix.

A layer's Fisher matrix is approximated by the Kronecker product of two factors: one for the
layer's inputs (with a 1 appended for the bias), one for its output derivatives. Each is estimated
online as a low-rank matrix plus a multiple of the identity, whose inverse costs two thin products.

Povey, Zhang and Khudanpur, "Parallel training of DNNs with natural gradient and parameter
averaging", arXiv:1410.7455, appendix B, as in Kaldi, except that

- every mini-batch is rescaled to a mean square of 1 before it enters the estimate, which makes this
  independent of the step size (applied to the derivatives), of the loss's units and of a common
  factor of the row weights;
- a row of weight w counts in both factors as w rows;
- the estimate starts as a running mean over the batches, because it is used for one round only;
- the subspace is renormalised from its float64 Gram matrix, so it needs no separate correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from sparknn.core.types import Float64Array, FloatArray

# Ranks of the low-rank part. Kaldi uses 80 for the outputs; 40 is as good at half the cost.
RANK_IN = 20
RANK_OUT = 40
# Shrinkage of G towards a multiple of the identity. Kaldi uses 4; on MNIST 16 to 64 tolerate the
# larger steps that many workers need.
ALPHA = 16.0
# The estimate decays by 1 / HISTORY per row.
HISTORY = 2000.0
# Mini-batches between updates of an estimate.
UPDATE_INTERVAL = 8
# Power iterations on the first mini-batch.
_N_START = 3
# Eigenvalues below this share of the largest are treated as noise.
_FLOOR = 5e-4
# A batch with a smaller sum of squares is zero, or too small for float32 to measure.
_SMALLEST_SQUARE = 1e-30


@dataclass
class OnlineFisher:
    """Running estimate of the second moments of rows of length D.

        F = R' diag(d) R + rho I;  G = F + (alpha / D) trace(F) I

    It starts as the identity. Its scale is arbitrary: rows are rescaled before they enter.

    Parameters
    ----------
    n_dims : int
        D, at least 2.
    max_rank : int
        Capped at (D + 1) / 2.

    Attributes
    ----------
    R : ndarray, shape (rank, D), float64
        Orthonormal rows.
    d : ndarray, shape (rank,), float64
    rho : float
    """

    n_dims: int
    max_rank: int
    R: Float64Array = field(init=False, repr=False)
    d: Float64Array = field(init=False, repr=False)
    rho: float = field(init=False, default=1.0)
    # W = E^(1/2) R in the dtype of the rows, and sqrt(diag(E)), shape (rank,).
    _W: FloatArray = field(init=False, repr=False)
    _root_e: Float64Array = field(init=False, repr=False)
    _n_rows: int = field(init=False, default=0)
    _n_batches: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        rank = min(self.max_rank, (self.n_dims + 1) // 2)
        # Disjoint combs that cover every column; 1.1 breaks their symmetry, as in Kaldi.
        R = np.zeros((rank, self.n_dims))
        for row in range(rank):
            R[row, row::rank] = 1
            R[row, row] = 1.1
        self.R = R / np.linalg.norm(R, axis=1, keepdims=True)
        self.d = np.ones(rank)

    def precondition(self, X: FloatArray, out: FloatArray) -> tuple[FloatArray, float]:
        """Multiply rows by the inverse of G, keeping their norm; then update the estimate.

            H = X W';  Y = X - H W  (proportional to X G^-1);  gamma = ||X|| / ||Y||

        G is that of earlier batches: the rows' own contribution would shrink them most.

        Parameters
        ----------
        X : ndarray, shape (n, D)
            Read only.
        out : ndarray, shape (n, D)
            Where Y is written.

        Returns
        -------
        Y : ndarray, shape (n, D)
        gamma : float
            ``gamma * Y`` is the result. For rows that are all zero or not finite it is X and 1, and
            the estimate does not change.

        Notes
        -----
        arXiv:1410.7455, appendix B.5.
        """
        square = _square(X)
        if not _SMALLEST_SQUARE < square < math.inf:
            return X, 1.0
        if self._n_rows == 0:
            self._n_rows = len(X)
            self._refresh(X)
            for _ in range(_N_START):
                self._update(X, X @ self._W.T, square)
        H = X @ self._W.T
        Y = np.subtract(X, np.matmul(H, self._W, out=out), out=out)
        gamma = math.sqrt(square / _square(Y))
        self._n_batches += 1
        if self._n_batches % UPDATE_INTERVAL == 0:
            self._n_rows += len(X)
            self._update(X, H, square)
        return Y, gamma

    def _refresh(self, X: FloatArray) -> None:
        """Set W such that I - W'W is proportional to G^-1.

        E = diag(e), e = 1 / (beta / d + 1), beta = rho (1 + alpha) + (alpha / D) sum(d).
        """
        beta = self.rho * (1 + ALPHA) + ALPHA / self.n_dims * self.d.sum()
        self._root_e = np.sqrt(self.d / (beta + self.d))
        self._W = (self._root_e[:, None] * self.R).astype(X.dtype)

    def _update(self, X: FloatArray, H: FloatArray, square: float) -> None:
        """Add a batch to F and track its leading subspace by one block power step.

            F' = eta S + (1 - eta) F,  S = X' X rescaled to trace D
            P = R F' = eta R S + (1 - eta) diag(d + rho) R
            P P' = U diag(c) U';  R <- c^(-1/2) U' P;  d + rho <- c^(1/2);  trace as in F'

        The paper's Z (appendix B.3) is P P'. Computed from P in float64, it keeps R orthonormal:
        the floor on d and rho bounds its condition number.
        """
        # First a running mean, then a decaying one.
        eta = min(0.9, max(1 - math.exp(-len(X) / HISTORY), len(X) / self._n_rows))
        d, rho, n_dims = self.d, self.rho, self.n_dims
        P = (H.T @ X) * (eta * n_dims / square / self._root_e)[:, None]
        P += ((1 - eta) * (d + rho))[:, None] * self.R
        Z = P @ P.T
        if not math.isfinite(Z.trace()):
            return
        c, U = np.linalg.eigh(Z)
        root = np.sqrt(np.maximum(c, ((1 - eta) * rho) ** 2))
        trace = eta * n_dims + (1 - eta) * (n_dims * rho + d.sum())
        rest = (trace - root.sum()) / (n_dims - len(d))
        floor = _FLOOR * root[-1]
        self.rho = max(rest, floor)
        self.d = np.maximum(root - rest, floor)
        self.R = (U / root).T @ P
        self._refresh(X)


@dataclass
class NaturalGradient:
    """Preconditions the inputs and output derivatives of every layer of a network.

    It lives for one round of one worker: estimates are neither sent nor averaged.

    Parameters
    ----------
    layers : tuple of int
        Sizes of the network's layers.
    """

    layers: tuple[int, ...]
    # Of each layer's inputs (with a 1 appended) and outputs; None where there is one dimension.
    _sides: list[tuple[OnlineFisher | None, OnlineFisher | None]] = field(init=False, repr=False)
    _memory: dict[int, tuple[FloatArray, FloatArray, FloatArray]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._sides = [
            (
                OnlineFisher(n_in + 1, RANK_IN) if n_in else None,
                OnlineFisher(n_out, RANK_OUT) if n_out > 1 else None,
            )
            for n_in, n_out in pairwise(self.layers)
        ]
        self._memory = {}

    def __call__(
        self, layer: int, A: FloatArray, dZ: FloatArray, root_weight: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Precondition the two factors of a layer's gradient.

        Parameters
        ----------
        layer : int
        A : ndarray, shape (n, n_in)
            The layer's inputs, without the 1. Read only.
        dZ : ndarray, shape (n, n_out)
            Output derivatives, times the row weights and any factor. Read only.
        root_weight : ndarray, shape (n, 1), optional
            Square roots of the row weights, if these differ.

        Returns
        -------
        A_hat : ndarray, shape (n, n_in + 1)
        dZ_hat : ndarray, shape (n, n_out)
            ``A_hat' dZ_hat`` is the layer's gradient, with the bias in the last row. The layer's
            next call overwrites both.
        """
        ones, Y_in, Y_out = self._buffers(layer, A, dZ)
        if root_weight is None:
            ones[:, :-1] = A
            ones[:, -1] = 1
        else:
            # The root of a row's weight on either side; the product does not change.
            np.multiply(A, root_weight, out=ones[:, :-1])
            ones[:, -1:] = root_weight
            dZ = np.divide(dZ, root_weight, out=np.zeros_like(dZ), where=root_weight > 0)
        inputs, outputs = self._sides[layer]
        A_hat, gamma_in = (ones, 1.0) if inputs is None else inputs.precondition(ones, Y_in)
        dZ_hat, gamma_out = (dZ, 1.0) if outputs is None else outputs.precondition(dZ, Y_out)
        return A_hat, np.multiply(dZ_hat, dZ.dtype.type(gamma_in * gamma_out), out=Y_out)

    def _buffers(
        self, layer: int, A: FloatArray, dZ: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return memory for ``[A, 1]`` and both results, allocated for the largest batch so far."""
        n = len(A)
        if layer not in self._memory or len(self._memory[layer][0]) < n:
            ones = np.empty((n, A.shape[1] + 1), dtype=A.dtype)
            self._memory[layer] = (ones, np.empty_like(ones), np.empty_like(dZ))
        ones, Y_in, Y_out = self._memory[layer]
        return ones[:n], Y_in[:n], Y_out[:n]


def _square(X: FloatArray) -> float:
    """Return ||X||^2."""
    flat = X.reshape(-1)
    return float(np.dot(flat, flat))
