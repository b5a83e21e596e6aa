"""A trained network that predicts with numpy alone: on executors, on the driver, in a web service.

A row's numbers do not depend on the rows beside it. The kernels of a BLAS round differently for
different numbers of rows (one row is another routine altogether), and some for different places
among them, so rows are always multiplied ``block_rows`` at a time, the last block filled up with
zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparknn.core.nn.losses import softmax
from sparknn.core.nn.network import Network
from sparknn.core.types import Float32Array, Float64Array, FloatArray

# Rows that go through the network at a time. Measured (784-300-10, one thread): 1.15 times the time
# of one big product in one block, 1.6 times in blocks of 8 rows.
BLOCK_ROWS = 128
_BLOCKS = (BLOCK_ROWS, 16, 8, 4, 1)
# The tiles into which a BLAS cuts a product come round again well before.
_WIDEST = 2048


@dataclass(frozen=True, eq=False)
class LocalPredictor:
    """A network and its parameters; pickles to 4 bytes a parameter.

    Parameters
    ----------
    network : Network
    theta : ndarray, shape (P,), float32
    thresholds : tuple of float, optional
        One a class; a class is predicted where its probability over its threshold is largest.

    Examples
    --------
    >>> from sparknn.core.nn.network import Network
    >>> network = Network((2, 2))
    >>> theta = np.array([1, 0, 0, 1, 0, 0], dtype=np.float32)
    >>> LocalPredictor(network, theta).predict([[3.0, 1.0], [0.0, 2.0]])
    array([0., 1.])
    """

    network: Network
    theta: Float32Array = field(repr=False)
    thresholds: tuple[float, ...] | None = None

    @property
    def n_features(self) -> int:
        return self.network.layers[0]

    @property
    def n_outputs(self) -> int:
        return self.network.layers[-1]

    @property
    def classifies(self) -> bool:
        return self.network.loss_fn.classifies

    def __getstate__(self) -> dict[str, Any]:
        # Plain values only: a pickle outlives changes of our classes' private fields.
        return {
            "layers": self.network.layers,
            "activation": self.network.activation,
            "loss": self.network.loss,
            "theta": np.ascontiguousarray(self.theta, dtype="<f4").tobytes(),
            "thresholds": self.thresholds,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = Network(state["layers"], state["activation"], state["loss"])
        theta = np.frombuffer(state["theta"], dtype="<f4")
        for name, value in (
            ("network", network),
            ("theta", theta),
            ("thresholds", state["thresholds"]),
        ):
            object.__setattr__(self, name, value)

    def predict_raw(self, X: ArrayLike) -> Float64Array:
        """Outputs of the last layer: logits, or predicted targets.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Numbers of any type; they are used as float32.

        Returns
        -------
        ndarray, shape (n, k), float64

        Raises
        ------
        ValueError
            If X has another number of columns, or holds NaN or infinite values.
        """
        matrix = self._checked(X)
        raw = self.outputs(matrix)
        invalid = np.flatnonzero(np.isnan(raw[:, 0]))
        if len(invalid):
            raise ValueError(
                f"X has NaN, infinite or too large values in {len(invalid)} of {len(matrix)} rows "
                f"(the first is row {invalid[0]}). Remove or impute them first."
            )
        return raw

    def predict_proba(self, X: ArrayLike) -> Float64Array:
        """Probabilities of the classes, shape (n, k), float64; every row sums to 1."""
        if not self.classifies:
            raise ValueError(
                f"A network trained with loss={self.network.loss!r} predicts numbers, not classes: "
                "it has no probabilities. Use predict."
            )
        return self.probabilities(self.predict_raw(X))

    def predict(self, X: ArrayLike) -> Float64Array:
        """Class numbers, shape (n,); or targets, shape (n,) for one and (n, k) for several."""
        return self.decide(self.predict_raw(X))

    def outputs(self, X: FloatArray) -> Float64Array:
        """``predict_raw`` of rows that may be invalid: those become rows of NaN.

        A row is invalid if it holds a value that is not finite in float32, or overflows on its way
        through the network.

        Parameters
        ----------
        X : ndarray, shape (n, d)
        """
        raw = np.empty((len(X), self.n_outputs), dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for start, stop, blocks in _blocks(X, block_rows(self.network.layers)):
                logits = self.network.logits(self.theta, blocks).reshape(-1, self.n_outputs)
                raw[start:stop] = logits[: stop - start]
                finite = np.isfinite(blocks).all(axis=2).reshape(-1)
                finite &= np.isfinite(logits).all(axis=1)
                raw[start:stop][~finite[: stop - start]] = np.nan
        return raw

    def probabilities(self, raw: Float64Array) -> Float64Array:
        """``predict_proba`` of ``predict_raw``."""
        return np.asarray(softmax(raw), dtype=np.float64)

    def decide(self, raw: Float64Array) -> Float64Array:
        """``predict`` of ``predict_raw``. A tie goes to the lowest class."""
        if not self.classifies:
            return raw[:, 0] if raw.shape[1] == 1 else raw
        if self.thresholds is None:
            return raw.argmax(axis=1).astype(np.float64)
        # As Spark: a class of threshold 0 wins wherever its probability is above 0 (inf), and
        # never where it is 0 (NaN).
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = self.probabilities(raw) / np.asarray(self.thresholds)
        scaled[np.isnan(scaled)] = -np.inf
        return scaled.argmax(axis=1).astype(np.float64)

    def _checked(self, X: ArrayLike) -> FloatArray:
        matrix = np.asarray(X)
        if matrix.dtype.kind not in "biuf":
            raise ValueError(
                f"X has dtype {matrix.dtype}; expected numbers in an array of shape "
                f"(n, {self.n_features})."
            )
        if matrix.ndim != 2 or matrix.shape[1] != self.n_features:
            hint = " Use X.reshape(1, -1) for one row." if matrix.ndim == 1 else ""
            raise ValueError(
                f"X has shape {matrix.shape}; expected (n, {self.n_features}): "
                f"the network was trained on {self.n_features} features.{hint}"
            )
        return matrix


def _blocks(X: FloatArray, n_block: int) -> Iterator[tuple[int, int, Float32Array]]:
    """Cut X into float32 arrays, shape (blocks, n_block, d); the last block ends in zeros."""
    n, d = X.shape
    for start in range(0, n, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, n)
        rows = np.ascontiguousarray(X[start:stop], dtype=np.float32)
        missing = -len(rows) % n_block
        if missing:
            rows = np.concatenate([rows, np.zeros((missing, d), dtype=np.float32)])
        yield start, stop, rows.reshape(-1, n_block, d)


@lru_cache(maxsize=64)
def block_rows(layers: tuple[int, ...]) -> int:
    """The most rows that may be multiplied at a time without a row's place making a difference.

    Which they are is a matter of the processor: OpenBLAS's kernels for AVX-512 sum every row's
    products in the same order, those for AVX2 (Haswell, Zen) the first six rows of twelve in
    another one than the next six, but eight rows alike. So it is tried, once for a network.
    """
    shapes = {(min(n_in, _WIDEST), min(n_out, _WIDEST)) for n_in, n_out in pairwise(layers)}
    return next(n for n in _BLOCKS if n == 1 or all(_treats_alike(n, *s) for s in shapes))


def _treats_alike(n_rows: int, n_in: int, n_out: int) -> bool:
    """Whether rows that are the same, ``n_rows`` of them, come out the same to the last bit."""
    rng = np.random.default_rng(0)
    W = rng.random((n_in, n_out), dtype=np.float32) - 0.5
    # Another order shows in some of the numbers only: in about a third of the sums of three.
    for _ in range(2 + 64 // n_out):
        row = rng.random(n_in, dtype=np.float32) - 0.5
        Z = np.tile(row, (n_rows, 1)) @ W
        if not np.array_equal(Z, np.broadcast_to(Z[0], Z.shape)):
            return False
    return True
