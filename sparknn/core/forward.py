"""Compute the last layer of a fitted network, by blocks of rows: dense, encoded or sparse ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sparknn.core.entries import Entries
from sparknn.core.nn.encoding import Encoder, Encoding
from sparknn.core.nn.input_layer import LEAST_SPARSE, SPARSE_DENSITY, InputLayer
from sparknn.core.nn.network import Network
from sparknn.core.row_blocks import BLOCK_ROWS, block_rows, split_rows
from sparknn.core.types import BoolArray, Float32Array, Float64Array, FloatArray, IntArray

# Entries of sparse rows multiplied at a time.
_ENTRIES = 8192


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The forward pass of ``LocalPredictor``, whose parameters these are."""

    network: Network
    theta: Float32Array
    encoding: Encoding | None
    input_offset: Float64Array | None

    @property
    def n_features(self) -> int:
        return self.network.layers[0] if self.encoding is None else self.encoding.n_features

    @property
    def n_outputs(self) -> int:
        return self.network.layers[-1]

    def outputs(self, X: FloatArray) -> Float64Array:
        """Compute the last layer of dense rows, shape (n, k); NaN for invalid rows."""
        raw = np.empty((len(X), self.n_outputs), dtype=np.float64)
        if self.encoding is not None:
            return self._encoded_outputs(X, self.encoding, raw)
        with np.errstate(over="ignore", invalid="ignore"):
            for start, stop, blocks in self._input_blocks(X, block_rows(self.network.layers)):
                few = None
                if self._wide:
                    rows = blocks.reshape(-1, self.n_features)[: stop - start]
                    few = self._few(np.count_nonzero(rows, axis=1))
                if few is None or not few.all():
                    logits = self.network.logits(self.theta, blocks).reshape(-1, self.n_outputs)
                    raw[start:stop] = logits[: stop - start]
                    finite = np.isfinite(blocks).all(axis=2).reshape(-1)
                    finite &= np.isfinite(logits).all(axis=1)
                    raw[start:stop][~finite[: stop - start]] = np.nan
                if few is not None and few.any():
                    raw[start:stop][few] = self._sparse_outputs(Entries.of(rows[few]))
        return raw

    def outputs_of(self, rows: Entries) -> Float64Array:
        """``outputs`` of rows that are given by their entries: to the byte the same numbers."""
        if self.encoding is not None:
            return self._outputs_of_dense(rows, np.arange(len(rows.counts)))
        if self.input_offset is not None:
            # Wide rows stay sparse.
            return replace(self, input_offset=None).outputs_of(rows.less(self.input_offset))
        with np.errstate(over="ignore", invalid="ignore"):
            rows = rows.without_zeros()
            few = self._few(rows.counts) if self._wide else np.zeros(len(rows.counts), dtype=bool)
            if few.all():
                return self._sparse_outputs(rows)
            raw = np.empty((len(few), self.n_outputs), dtype=np.float64)
            raw[few] = self._sparse_outputs(rows.chosen(few))
            many = np.flatnonzero(~few)
            raw[many] = self._outputs_of_dense(rows, many)
            return raw

    def _outputs_of_dense(self, rows: Entries, which: IntArray) -> Float64Array:
        """Of the rows ``which``, made dense a block at a time."""
        raw = np.empty((len(which), self.n_outputs), dtype=np.float64)
        for start in range(0, len(which), BLOCK_ROWS):
            at = which[start : start + BLOCK_ROWS]
            mine = np.zeros(len(rows.counts), dtype=bool)
            mine[at] = True
            raw[start : start + len(at)] = self.outputs(rows.chosen(mine).dense(self.n_features))
        return raw

    def _input_blocks(self, X: FloatArray, n_block: int) -> Iterator[tuple[int, int, Float32Array]]:
        """``split_rows`` of all rows, less the offset."""
        if self.input_offset is None:
            yield from split_rows(X, n_block)
            return
        for first in range(0, len(X), BLOCK_ROWS):
            rows = X[first : first + BLOCK_ROWS] - self.input_offset
            for start, stop, blocks in split_rows(rows, n_block):
                yield first + start, first + stop, blocks

    @cached_property
    def _encoder(self) -> Encoder:
        assert self.encoding is not None
        return Encoder(self.encoding)

    def _encoded_outputs(
        self, X: FloatArray, encoding: Encoding, raw: Float64Array
    ) -> Float64Array:
        layer = InputLayer(self.network, encoding.n_embedded)
        W, theta = layer.split(self.theta)
        n_block = block_rows(layer.dense.layers)
        inputs = np.empty((BLOCK_ROWS, encoding.n_dense), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start, stop, blocks in self._input_blocks(X, n_block):
                rows = blocks.reshape(-1, encoding.n_features)
                # Of one row, encoding the others of its block would take half the time.
                encoded = np.zeros((len(rows), encoding.n_dense), dtype=np.float32)
                encoded[: stop - start] = self._encoder.encode(rows[: stop - start], inputs)
                embedded = _Embedded(*encoding.rows_of_weights(rows), W)
                logits = layer.dense.logits(
                    theta, encoded.reshape(len(blocks), n_block, encoding.n_dense), embedded
                ).reshape(-1, self.n_outputs)
                usable = encoding.valid(rows) & np.isfinite(logits).all(axis=1)
                logits[~usable] = np.nan
                raw[start:stop] = logits[: stop - start]
        return raw

    @property
    def _wide(self) -> bool:
        return self.n_features >= LEAST_SPARSE

    def _few(self, counts: IntArray) -> BoolArray:
        """Which rows are multiplied entry by entry, however they came: those with few entries."""
        return counts <= SPARSE_DENSITY * self.n_features

    def _sparse_outputs(self, rows: Entries) -> Float64Array:
        """Of rows with few entries: each row's sum is its own, whatever rows are beside it."""
        values, columns, counts = rows
        W, b, _ = self.network.blocks(self.theta)[0]
        ends = np.cumsum(counts)
        starts = ends - counts
        finite = np.ones(len(counts), dtype=bool)
        finite[np.repeat(np.arange(len(counts)), counts)[~np.isfinite(values)]] = False
        Z = np.zeros((len(counts), len(b)), dtype=np.float32)
        row = 0
        while row < len(counts):
            stop = int(np.searchsorted(ends, starts[row] + _ENTRIES, side="right"))
            stop = max(stop, row + 1)
            first, last = int(starts[row]), int(ends[stop - 1])
            terms = W[columns[first:last]]
            terms *= values[first:last, None]
            # `reduceat` has no word for an empty row.
            there = row + np.flatnonzero(counts[row:stop])
            if len(there):
                Z[there] = np.add.reduceat(terms, starts[there] - first, axis=0)
            row = stop
        Z += b
        raw = np.empty((len(counts), self.n_outputs), dtype=np.float64)
        for start, stop, blocks in split_rows(Z, block_rows(self.network.layers)):
            logits = self.network.logits_above(self.theta, blocks).reshape(-1, self.n_outputs)
            raw[start:stop] = logits[: stop - start]
        raw[~(finite & np.isfinite(raw).all(axis=1))] = np.nan
        return raw


@dataclass(frozen=True)
class _Embedded:
    """Add the rows of ``W`` that categories use (``Encoding.rows_of_weights``), one by one."""

    numbers: IntArray
    known: BoolArray
    W: FloatArray

    def add_to(self, Z: FloatArray) -> None:
        flat = Z.reshape(-1, Z.shape[-1])
        for numbers, known in zip(self.numbers.T, self.known.T, strict=True):
            flat[known] += self.W[numbers[known]]

    def backward(self, dZ: FloatArray) -> None:
        raise TypeError("A predictor is not trained.")
