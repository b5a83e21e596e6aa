"""Decode a column of features on the executors, predict, and return the output columns.

Module-level functions of arrow arrays. Rows are made dense a few megabytes at a time, so that
wide sparse vectors are never dense in memory all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from sparknn.core.entries import Entries
from sparknn.core.nn.input_layer import LEAST_SPARSE
from sparknn.core.predictor import LocalPredictor
from sparknn.core.row_blocks import BLOCK_ROWS
from sparknn.core.types import Float64Array, FloatArray, IntArray
from sparknn.engine.broadcast import Sent

# Rows are made dense in pieces of about this size, a whole number of the predictor's blocks.
_PIECE_BYTES = 16 << 20

BoolArray = NDArray[np.bool_]


class FeaturesError(ValueError):
    """Rows whose features the model cannot predict from; the message says which and why."""


@dataclass(frozen=True)
class Scorer:
    """Describe what to predict from a column; sent to the executors.

    Parameters
    ----------
    sent : LocalPredictor, or what holds one
        Its thresholds are ignored.
    thresholds : tuple of float, optional
        One per class.
    column : str
        Name of the features column, for messages.
    outputs : tuple of str
        Which of ``raw``, ``probability`` and ``prediction`` to return, in this order.
    nulls : bool
        Whether invalid rows become null. If not, they raise an error.
    """

    sent: LocalPredictor | Sent[LocalPredictor]
    thresholds: tuple[float, ...] | None
    column: str
    outputs: tuple[str, ...]
    nulls: bool

    @property
    def predictor(self) -> LocalPredictor:
        """The network, with its thresholds."""
        sent = self.sent if isinstance(self.sent, LocalPredictor) else self.sent.value
        return replace(sent, thresholds=self.thresholds)


@dataclass(frozen=True)
class ListColumn:
    """Hold a column of lists: all entries one after another.

    Parameters
    ----------
    values : ndarray, shape (N,)
    starts : ndarray, shape (n + 1,), int64
        Row i has entries ``starts[i]`` to ``starts[i + 1]``.
    """

    values: FloatArray
    starts: IntArray

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.starts)

    def cut(self, start: int, stop: int) -> ListColumn:
        """Return rows ``start`` to ``stop``."""
        first, last = self.starts[start], self.starts[stop]
        return ListColumn(self.values[first:last], self.starts[start : stop + 1] - first)


@dataclass(frozen=True)
class DecodedRows:
    """Hold decoded features, not dense yet.

    Parameters
    ----------
    values : ListColumn
        Entries of every row; those of a null row are ignored.
    present : ndarray, shape (n,), bool
        Rows that are not null.
    sizes : ndarray, shape (n,)
        Number of features of each row.
    indices : ListColumn, optional
        Positions of the entries of sparse rows; None if no row is sparse.
    is_sparse : ndarray, shape (n,), bool, optional
    """

    values: ListColumn
    present: BoolArray
    sizes: IntArray
    indices: ListColumn | None = None
    is_sparse: BoolArray | None = None

    def dense(self, start: int, stop: int, n_features: int) -> FloatArray:
        """Return rows ``start`` to ``stop``, shape (n, d); a null row is NaN."""
        n = stop - start
        part, present = self.values.cut(start, stop), self.present[start:stop]
        if self.indices is None or self.is_sparse is None:
            if present.all():
                return part.values.reshape(n, n_features)
            X = np.full((n, n_features), np.nan, dtype=_float_type(part.values))
            X[present] = part.values[np.repeat(present, part.lengths)].reshape(-1, n_features)
            return X
        with np.errstate(over="ignore"):
            entries = part.values.astype(_float_type(part.values), copy=False)
        X = np.zeros((n, n_features), dtype=entries.dtype)
        sparse = self.is_sparse[start:stop] & present
        full = present & ~sparse
        lengths = part.lengths
        X[full] = entries[np.repeat(full, lengths)].reshape(-1, n_features)
        positions = self.indices.cut(start, stop)
        row_of = np.repeat(np.flatnonzero(sparse), lengths[sparse])
        column_of = positions.values[np.repeat(sparse, positions.lengths)]
        X[row_of, column_of] = entries[np.repeat(sparse, lengths)]
        X[~present] = np.nan
        return X

    def entries(self, n_features: int) -> Entries:
        """All rows by their entries; a null row has none."""
        assert self.indices is not None
        assert self.is_sparse is not None
        sparse = self.is_sparse & self.present
        full = self.present & ~sparse
        with np.errstate(over="ignore"):
            flat = self.values.values
            values: FloatArray = flat.astype(_float_type(flat), copy=False)
        counts = np.where(self.present, self.values.lengths, 0)
        kept = np.repeat(self.present, self.values.lengths)
        columns = np.empty(len(values), dtype=np.int64)
        # Dense rows have an entry in every column.
        columns[np.repeat(full, self.values.lengths)] = np.tile(np.arange(n_features), full.sum())
        positions = np.repeat(sparse, self.indices.lengths)
        columns[np.repeat(sparse, self.values.lengths)] = self.indices.values[positions]
        return Entries(values[kept], columns[kept], counts)


def _float_type(values: FloatArray) -> np.dtype[np.floating]:
    """Doubles are sent only if the model has an offset, and must stay doubles."""
    return np.dtype(np.float64 if values.dtype == np.float64 else np.float32)


def score(scorer: Scorer, *columns: pa.Array) -> pa.StructArray:
    """Predict from arrow columns.

    Parameters
    ----------
    scorer : Scorer
    *columns : arrow arrays
        Arrays of numbers; for vectors, their values, types (0 sparse, 1 dense), sizes and indices.

    Returns
    -------
    StructArray
        A field for each of ``scorer.outputs``.

    Raises
    ------
    FeaturesError
        If a row has another number of features than the network; or, unless ``scorer.nulls``, if
        it is invalid.
    """
    raw = _predict(scorer, decode(*columns))
    valid = ~np.isnan(raw[:, 0])
    return pa.StructArray.from_arrays(
        [_arrow(values, valid) for values in _columns(scorer, raw)], names=list(scorer.outputs)
    )


def score_pandas(scorer: Scorer, *columns: pd.Series) -> pd.DataFrame:
    """Predict like ``score`` on Spark versions that pass pandas: lists arrive as objects."""
    raw = _predict(scorer, decode_pandas(*columns))
    valid = ~np.isnan(raw[:, 0])
    return pd.DataFrame(
        {
            name: _objects(values, valid)
            for name, values in zip(scorer.outputs, _columns(scorer, raw), strict=True)
        }
    )


def decode(values: pa.ListArray, *vector: pa.Array) -> DecodedRows:
    """Decode arrays of numbers, or the fields of vectors. A null entry becomes NaN."""
    present = np.ones(len(values), dtype=bool)
    if values.null_count:
        present = values.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    lists = _lists(values)
    if not vector:
        return DecodedRows(lists, present, lists.lengths)
    types, sizes, indices = vector
    is_sparse = (types.fill_null(1).to_numpy(zero_copy_only=False) == 0) & present
    if not is_sparse.any():
        return DecodedRows(lists, present, lists.lengths)
    sizes = np.where(is_sparse, sizes.fill_null(0).to_numpy(zero_copy_only=False), lists.lengths)
    return DecodedRows(lists, present, sizes, _lists(indices), is_sparse)


def decode_pandas(values: pd.Series, *vector: pd.Series) -> DecodedRows:
    """Decode pandas columns, whose lists are objects."""
    present = values.notna().to_numpy()
    lists = _concatenate(values, present)
    if not vector:
        return DecodedRows(lists, present, lists.lengths)
    types, sizes, indices = vector
    is_sparse = (types.fillna(1).to_numpy() == 0) & present
    if not is_sparse.any():
        return DecodedRows(lists, present, lists.lengths)
    n_features = np.where(is_sparse, sizes.fillna(0).to_numpy(), lists.lengths).astype(np.int64)
    return DecodedRows(lists, present, n_features, _concatenate(indices, is_sparse), is_sparse)


def _predict(scorer: Scorer, rows: DecodedRows) -> Float64Array:
    predictor = scorer.predictor
    n, d = len(rows.present), predictor.n_features
    wrong = rows.sizes[rows.present & (rows.sizes != d)]
    if len(wrong):
        raise FeaturesError(
            f"Column '{scorer.column}' has rows of {int(wrong[0])} features; the model was "
            f"trained on {d}. Assemble the same columns, in the same order, as for training."
        )
    if rows.is_sparse is not None and d >= LEAST_SPARSE:
        raw = predictor.outputs_of(rows.entries(d))
    else:
        raw = np.empty((n, predictor.n_outputs), dtype=np.float64)
        for start, stop in _pieces(n, d):
            raw[start:stop] = predictor.outputs(rows.dense(start, stop, d))
    raw[~rows.present] = np.nan
    invalid = np.isnan(raw[:, 0])
    if invalid.any() and not scorer.nulls:
        n_null = int((~rows.present).sum())
        raise FeaturesError(
            f"Column '{scorer.column}' has {int(invalid.sum())} invalid rows in a batch of {n}: "
            f"{n_null} null, {int(invalid.sum()) - n_null} with null, NaN, infinite or too large "
            "values. Impute them, or set the model's handleInvalid to 'skip' (drop the rows) or "
            "'keep' (null outputs)."
        )
    return raw


def _columns(scorer: Scorer, raw: Float64Array) -> Iterator[FloatArray]:
    for name in scorer.outputs:
        with np.errstate(invalid="ignore"):
            if name == "raw":
                yield raw
            elif name == "probability":
                yield scorer.predictor.probabilities(raw)
            else:
                yield scorer.predictor.decide(raw)


def _pieces(n: int, d: int) -> Iterator[tuple[int, int]]:
    step = BLOCK_ROWS * max(1, _PIECE_BYTES // (4 * max(d, 1) * BLOCK_ROWS))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def _lists(column: pa.ListArray) -> ListColumn:
    starts = column.offsets.to_numpy().astype(np.int64)
    values = column.values[int(starts[0]) : int(starts[-1])]
    # A null entry becomes NaN here.
    numbers = values.to_numpy(zero_copy_only=False)
    return ListColumn(numbers, starts - starts[0])


def _arrow(values: FloatArray, valid: BoolArray) -> pa.Array:
    """Convert numbers, shape (n,), or lists, shape (n, k); null where not valid."""
    mask = None if valid.all() else pa.array(~valid)
    if values.ndim == 1:
        return pa.array(values, mask=None if mask is None else ~valid)
    n, k = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(offsets, flat, mask=mask)


def _objects(values: FloatArray, valid: BoolArray) -> pd.Series:
    """Convert numbers or lists to a pandas column, None where not valid."""
    column = pd.Series(list(values) if values.ndim == 2 else values, dtype=object)
    column[~valid] = None
    return column


def _concatenate(column: pd.Series, present: BoolArray) -> ListColumn:
    rows = column.to_numpy()
    lengths = np.zeros(len(rows), dtype=np.int64)
    lengths[present] = [len(row) for row in rows[present]]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if not present.any():
        return ListColumn(np.empty(0), starts)
    values = np.concatenate(rows[present])
    if values.dtype == object:
        values = values.astype(np.float64)
    return ListColumn(values, starts)
