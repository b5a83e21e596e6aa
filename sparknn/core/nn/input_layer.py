"""The input layer: what each block of a row's features adds to the first hidden layer.

    Z_1 = b + X W + sum over the other blocks

``X W`` are the dense numbers, the first layer of ``network``. A block besides them (``InputBlock``)
keeps its own weights and costs what a mini-batch has of it. There is one: the entries of sparse
rows, each of which adds its value times a row of weights.

A mini-batch of sparse rows becomes a small dense matrix over the columns that it has: one product
with their weights is the fastest way through numpy. (64 rows of 80 words, 32 units: 0.25 ms, and
0.12 ms back; ``np.add.reduceat`` over rows of weights: 0.40 and 0.99 ms.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sparknn.core.entries import Entries
from sparknn.core.nn.network import Network
from sparknn.core.types import FloatArray, IntArray

# Rows of fewer features are dense, however they are kept: that is as fast, and every feature is
# centred. Of the others, those are sparse in which at most this share of the features is not 0.
LEAST_SPARSE, SPARSE_DENSITY = 2048, 0.1
# Rows and entries of a small dense matrix, at most, unless one row has more entries: it takes
# 4 MB, however large the mini-batch is.
_MOST_ROWS, _MOST_ENTRIES = 128, 8192


class _Part(NamedTuple):
    """Some rows of a mini-batch: ``X``, shape (rows, u), over ``at``, the places of its columns."""

    start: int
    stop: int
    X: FloatArray
    at: IntArray | slice


@dataclass(frozen=True)
class SparseBatch:
    """A mini-batch of sparse rows.

    Parameters
    ----------
    columns : ndarray, shape (u,), intp
        Those that it touches, ascending.
    parts : list
        The rows, over the columns that they touch.
    """

    columns: IntArray
    parts: list[_Part]

    @classmethod
    def of(
        cls, entries: Entries, always: IntArray | None = None, shift: FloatArray | None = None
    ) -> SparseBatch:
        """Compress rows to the columns that they touch.

        Parameters
        ----------
        entries : Entries
        always : ndarray, shape (m,), optional
            Columns that count as touched by every row ...
        shift : ndarray, shape (m,), optional
            ... and what is subtracted from their values, 0 where a row has no entry.
        """
        values, columns, counts = entries
        ends = np.cumsum(counts)
        parts: list[_Part] = []
        touched: list[IntArray] = []
        start = 0
        while start < len(counts):
            before = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, before + _MOST_ENTRIES, side="right"))
            stop = max(start + 1, min(stop, start + _MOST_ROWS, len(counts)))
            mine = slice(before, int(ends[stop - 1]))
            at, X = _compressed(values[mine], columns[mine], counts[start:stop], always, shift)
            parts.append(_Part(start, stop, X, slice(None)))
            touched.append(at)
            start = stop
        if len(parts) == 1:
            return cls(touched[0], parts)
        union = np.unique(np.concatenate(touched)) if touched else np.empty(0, np.intp)
        places = [np.searchsorted(union, at) for at in touched]
        return cls(union, [p._replace(at=at) for p, at in zip(parts, places, strict=True)])

    def add_to(self, Z: FloatArray, W: FloatArray) -> None:
        """Add ``X W`` to ``Z``, shape (n, h). ``W``, shape (u, h), are its columns' weights."""
        for start, stop, X, at in self.parts:
            Z[start:stop] += X @ W[at]

    def gradient(self, dZ: FloatArray, out: FloatArray) -> None:
        """Write ``X' dZ``, the gradient for its columns' weights, into ``out``, shape (u, h)."""
        if len(self.parts) == 1:
            np.matmul(self.parts[0].X.T, dZ, out=out)
            return
        out[...] = 0
        for start, stop, X, at in self.parts:
            # No column is in a part twice.
            out[at] += X.T @ dZ[start:stop]


@dataclass(frozen=True)
class FixedRows:
    """A sparse block that only predicts: an ``InputBlock`` without a backward pass.

    Parameters
    ----------
    batch : SparseBatch
    W : ndarray, shape (n_sparse, h)
    """

    batch: SparseBatch
    W: FloatArray

    def add_to(self, Z: FloatArray) -> None:
        self.batch.add_to(Z, self.W[self.batch.columns])

    def backward(self, dZ: FloatArray) -> None:
        raise TypeError("FixedRows only predicts; train with TrainedRows.")


def _compressed(
    values: FloatArray,
    columns: IntArray,
    counts: IntArray,
    always: IntArray | None,
    shift: FloatArray | None,
) -> tuple[IntArray, FloatArray]:
    """The columns that rows touch, ascending, and the rows as a dense matrix over them."""
    n, n_entries = len(counts), len(values)
    if always is not None and len(always):
        # Entries of value 0 beyond the last row: they only reserve their columns.
        columns = np.concatenate([columns, always])
    total = len(columns)
    # Sorted with their places in one number: a fifth of the time of argsort.
    bits = total.bit_length()
    key = columns.astype(np.int64)
    key <<= bits
    key |= np.arange(total)
    key.sort()
    place = key & ((1 << bits) - 1)
    key >>= bits
    first = np.empty(total, dtype=bool)
    first[:1] = True
    np.not_equal(key[1:], key[:-1], out=first[1:])
    touched = key[first].astype(np.intp, copy=False)
    u = len(touched)
    number = np.empty(total, dtype=np.intp)
    number[place] = np.cumsum(first) - 1
    flat = number[:n_entries]
    flat += np.repeat(np.arange(n) * u, counts)
    X: FloatArray = np.zeros((n, u), dtype=values.dtype)
    np.add.at(X.reshape(-1), flat, values)
    if shift is not None and total > n_entries:
        X[:, number[n_entries:]] -= shift
    return touched, X


@dataclass(frozen=True)
class InputLayer:
    """Where a network's inputs are in its parameters.

        theta = [weights of the sparse block, (n_sparse, h) | the network of the dense numbers]

    Parameters
    ----------
    network : Network
        Of all inputs: first the columns of the sparse rows, then the dense numbers.
    n_sparse : int
        0 for dense numbers alone.
    """

    network: Network
    n_sparse: int

    @cached_property
    def dense(self) -> Network:
        """The network without the sparse block: of the dense numbers, which may be none."""
        n_inputs, *others = self.network.layers
        return replace(self.network, layers=(n_inputs - self.n_sparse, *others))

    @property
    def shape(self) -> tuple[int, int]:
        """Of the sparse block's weights."""
        return self.n_sparse, self.network.layers[1]

    def split(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Views: the sparse block's weights, shape (n_sparse, h), and the dense network's theta."""
        n = self.n_sparse * self.network.layers[1]
        return theta[:n].reshape(self.shape), theta[n:]
