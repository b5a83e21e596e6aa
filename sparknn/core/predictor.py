"""Predict with numpy alone: on executors, on the driver, in a web service.

A row's prediction does not depend on the other rows of a call. BLAS kernels round differently for
different numbers of rows, and some for different positions among them; so rows are always
multiplied ``block_rows`` at a time, and the last block is padded with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from sparknn.core.columns import InputColumns
from sparknn.core.entries import Entries
from sparknn.core.nn.encoding import Encoder, Encoding
from sparknn.core.nn.input_layer import LEAST_SPARSE, SPARSE_DENSITY, InputLayer
from sparknn.core.nn.losses import softmax
from sparknn.core.nn.network import Network
from sparknn.core.types import BoolArray, Float32Array, Float64Array, FloatArray, IntArray

# Rows multiplied at a time. Measured (784-300-10, one thread): 1.15 times the time of one large
# product, and 1.6 times in blocks of 8 rows.
BLOCK_ROWS = 128
_BLOCKS = (BLOCK_ROWS, 16, 8, 4, 1)
# Entries of sparse rows multiplied at a time.
_ENTRIES = 8192
# A BLAS repeats its tiles well before this width, so wider layers need no test of their own.
_MAX_WIDTH = 2048


@dataclass(frozen=True, eq=False)
class LocalPredictor:
    """A trained network; its pickle takes 4 bytes per parameter.

    Parameters
    ----------
    network : Network
    theta : ndarray, shape (P,), float32
    thresholds : tuple of float, optional
        One per class; predicted is the class with the largest probability / threshold.
    encoding : Encoding, optional
        How features become the network's inputs; by default, they are the inputs.
    input_offset : ndarray, shape (d,), float64, optional
        Subtracted from the features, before they are encoded or become float32.
    output_offset : ndarray, shape (k,), float64, optional
        Added to the predicted targets.
    inputs : InputColumns, optional
        The columns of a table that features are assembled from.

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
    encoding: Encoding | None = field(default=None, repr=False)
    input_offset: Float64Array | None = field(default=None, repr=False)
    output_offset: Float64Array | None = field(default=None, repr=False)
    inputs: InputColumns | None = field(default=None, repr=False)

    @property
    def n_features(self) -> int:
        return self.network.layers[0] if self.encoding is None else self.encoding.n_features

    @property
    def n_outputs(self) -> int:
        return self.network.layers[-1]

    @property
    def classifies(self) -> bool:
        return self.network.loss_fn.classifies

    def __getstate__(self) -> dict[str, Any]:
        # Plain values only, so that pickles stay readable when private fields change.
        return {
            "layers": self.network.layers,
            "activation": self.network.activation,
            "loss": self.network.loss,
            "theta": np.ascontiguousarray(self.theta, dtype="<f4").tobytes(),
            "thresholds": self.thresholds,
            "encoding": None if self.encoding is None else self.encoding.to_json(),
            "input_offset": _to_list(self.input_offset),
            "output_offset": _to_list(self.output_offset),
            "inputs": None if self.inputs is None else self.inputs.to_json(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = Network(state["layers"], state["activation"], state["loss"])
        theta = np.frombuffer(state["theta"], dtype="<f4")
        encoding = state.get("encoding") and Encoding.from_json(state["encoding"])
        self.__dict__.update(
            network=network,
            theta=theta,
            thresholds=state["thresholds"],
            encoding=encoding,
            input_offset=_from_list(state.get("input_offset")),
            output_offset=_from_list(state.get("output_offset")),
            inputs=state.get("inputs") and InputColumns.from_json(state["inputs"]),
        )

    def predict_raw(self, X: ArrayLike | Mapping[str, Any]) -> Float64Array:
        """Compute the outputs of the last layer: logits, or predicted targets.

        Parameters
        ----------
        X : array-like or scipy sparse matrix, shape (n, d); or pandas.DataFrame or dict
            Any numeric type; used as float32, less the offset. If the model has ``inputs``, a table
            is taken by their names, text too; ``{"age": 30, "city": "Oslo"}`` is one row.

        Returns
        -------
        ndarray, shape (n, k), float64

        Raises
        ------
        ValueError
            If the shape or type of X is wrong, or X has NaN or infinite values.
        """
        if hasattr(X, "tocsr"):
            return self.predict_raw_of(self._entries(X.tocsr()))
        if self.inputs is not None and (isinstance(X, Mapping) or hasattr(X, "columns")):
            return _all_valid(self.outputs(self.inputs.features(cast(Any, X))))
        return _all_valid(self.outputs(self._checked(cast(ArrayLike, X))))

    def predict_raw_of(self, rows: Entries) -> Float64Array:
        """``predict_raw`` of rows that are given by their entries, columns ascending."""
        return _all_valid(self.outputs_of(rows))

    def predict_proba(self, X: ArrayLike | Mapping[str, Any]) -> Float64Array:
        """Compute the probabilities of the classes, shape (n, k), float64; every row sums to 1."""
        if not self.classifies:
            raise ValueError(
                f"A network trained with loss={self.network.loss!r} is a regression and has no "
                "probabilities. Use predict."
            )
        return self.probabilities(self.predict_raw(X))

    def predict(self, X: ArrayLike | Mapping[str, Any]) -> Float64Array:
        """Predict class indices, shape (n,); or targets, shape (n,) for one, (n, k) for several."""
        return self.decide(self.predict_raw(X))

    def outputs(self, X: FloatArray) -> Float64Array:
        """Compute ``predict_raw``; rows that are invalid become rows of NaN.

        A row is invalid if a value is not finite in float32 (a missing one, unless the encoding
        replaces it), or if it overflows in the network.

        Parameters
        ----------
        X : ndarray, shape (n, d)
        """
        return self._plus_offset(self._outputs(X))

    def _plus_offset(self, raw: Float64Array) -> Float64Array:
        return raw if self.output_offset is None else raw + self.output_offset

    def _outputs(self, X: FloatArray) -> Float64Array:
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
        return self._plus_offset(self._outputs_of(rows))

    def _outputs_of(self, rows: Entries) -> Float64Array:
        if self.encoding is not None:
            return self._outputs_of_dense(rows, np.arange(len(rows.counts)))
        if self.input_offset is not None:
            # Wide rows stay sparse.
            return replace(self, input_offset=None)._outputs_of(rows.less(self.input_offset))
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
            raw[start : start + len(at)] = self._outputs(rows.chosen(mine).dense(self.n_features))
        return raw

    def _input_blocks(self, X: FloatArray, n_block: int) -> Iterator[tuple[int, int, Float32Array]]:
        """``_blocks`` of all rows, less the offset."""
        if self.input_offset is None:
            yield from _blocks(X, n_block)
            return
        for first in range(0, len(X), BLOCK_ROWS):
            rows = X[first : first + BLOCK_ROWS] - self.input_offset
            for start, stop, blocks in _blocks(rows, n_block):
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
        for start, stop, blocks in _blocks(Z, block_rows(self.network.layers)):
            logits = self.network.logits_above(self.theta, blocks).reshape(-1, self.n_outputs)
            raw[start:stop] = logits[: stop - start]
        raw[~(finite & np.isfinite(raw).all(axis=1))] = np.nan
        return raw

    def probabilities(self, raw: Float64Array) -> Float64Array:
        """Convert ``predict_raw`` to ``predict_proba``."""
        return np.asarray(softmax(raw), dtype=np.float64)

    def decide(self, raw: Float64Array) -> Float64Array:
        """Convert ``predict_raw`` to ``predict``. Ties go to the lowest class."""
        if not self.classifies:
            return raw[:, 0] if raw.shape[1] == 1 else raw
        if self.thresholds is None:
            return raw.argmax(axis=1).astype(np.float64)
        # As in Spark, a class of threshold 0 wins if its probability is above 0 (inf), and never if
        # it is 0 (NaN).
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = self.probabilities(raw) / np.asarray(self.thresholds)
        scaled[np.isnan(scaled)] = -np.inf
        return scaled.argmax(axis=1).astype(np.float64)

    def _checked(self, X: ArrayLike) -> FloatArray:
        matrix = np.asarray(X)
        self._check(matrix.dtype, matrix.shape)
        return matrix

    def _entries(self, X: Any) -> Entries:
        """The rows of a matrix of scipy in compressed sparse row form."""
        self._check(X.dtype, X.shape)
        if not X.has_sorted_indices:
            X = X.sorted_indices()
        return Entries(X.data, X.indices, np.diff(X.indptr))

    def _check(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if dtype.kind not in "biuf":
            raise ValueError(
                f"X has dtype {dtype}; expected numbers in an array of shape "
                f"(n, {self.n_features})."
            )
        if len(shape) != 2 or shape[1] != self.n_features:
            hint = " Use X.reshape(1, -1) for one row." if len(shape) == 1 else ""
            raise ValueError(
                f"X has shape {shape}; expected (n, {self.n_features}): "
                f"the network was trained on {self.n_features} features.{hint}"
            )


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


def _to_list(offset: Float64Array | None) -> list[float] | None:
    return None if offset is None else offset.tolist()


def _from_list(saved: list[float] | None) -> Float64Array | None:
    return None if saved is None else np.array(saved, dtype=np.float64)


def _all_valid(raw: Float64Array) -> Float64Array:
    invalid = np.flatnonzero(np.isnan(raw[:, 0]))
    if len(invalid):
        raise ValueError(
            f"X has NaN, infinite or too large values in {len(invalid)} of {len(raw)} rows "
            f"(the first is row {invalid[0]}). Remove or impute them first."
        )
    return raw


def _blocks(X: FloatArray, n_block: int) -> Iterator[tuple[int, int, Float32Array]]:
    """Split X into float32 arrays, shape (blocks, n_block, d); pad the last block with zeros."""
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
    """Return the largest block in which a row's result does not depend on its position.

    This depends on the processor: OpenBLAS's kernels for AVX-512 sum the products of every row in
    the same order; those for AVX2 (Haswell, Zen) treat the first six rows of twelve differently
    from the next six, but eight rows equally. So it is measured, once per network.
    """
    shapes = {(min(n_in, _MAX_WIDTH), min(n_out, _MAX_WIDTH)) for n_in, n_out in pairwise(layers)}
    return next(n for n in _BLOCKS if n == 1 or all(_is_position_free(n, *s) for s in shapes))


def _is_position_free(n_rows: int, n_in: int, n_out: int) -> bool:
    """Return whether ``n_rows`` equal rows have equal products, to the last bit."""
    rng = np.random.default_rng(0)
    W = rng.random((n_in, n_out), dtype=np.float32) - 0.5
    # A different order changes only some sums: about a third of the sums of three.
    for _ in range(2 + 64 // n_out):
        row = rng.random(n_in, dtype=np.float32) - 0.5
        Z = np.tile(row, (n_rows, 1)) @ W
        if not np.array_equal(Z, np.broadcast_to(Z[0], Z.shape)):
            return False
    return True
