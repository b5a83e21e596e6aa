"""Predict from a column of features on the executors, and return the output columns.

Module-level functions of arrow arrays. Rows are made dense a few megabytes at a time, so that
wide sparse vectors are never dense in memory all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sparknn.core.nn.input_layer import LEAST_SPARSE
from sparknn.core.predictor import LocalPredictor
from sparknn.core.row_blocks import BLOCK_ROWS
from sparknn.core.types import BoolArray, Float64Array, FloatArray
from sparknn.engine.broadcast import Sent
from sparknn.ml.feature_rows import DecodedRows, decode, decode_pandas

# Rows are made dense in pieces of about this size, a whole number of the predictor's blocks.
_PIECE_BYTES = 16 << 20


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
        Which of ``raw``, ``probability``, ``prediction`` and ``contributions`` to return, in this
        order.
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
    rows = decode(*columns)
    raw = _predict(scorer, rows)
    valid = ~np.isnan(raw[:, 0])
    return pa.StructArray.from_arrays(
        [_arrow(values, valid) for values in _columns(scorer, rows, raw)],
        names=list(scorer.outputs),
    )


def score_pandas(scorer: Scorer, *columns: pd.Series) -> pd.DataFrame:
    """Predict like ``score`` on Spark versions that pass pandas: lists arrive as objects."""
    rows = decode_pandas(*columns)
    raw = _predict(scorer, rows)
    valid = ~np.isnan(raw[:, 0])
    return pd.DataFrame(
        {
            name: _objects(values, valid)
            for name, values in zip(scorer.outputs, _columns(scorer, rows, raw), strict=True)
        }
    )


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


def _columns(scorer: Scorer, rows: DecodedRows, raw: Float64Array) -> Iterator[FloatArray]:
    predictor = scorer.predictor
    for name in scorer.outputs:
        with np.errstate(invalid="ignore"):
            if name == "raw":
                yield raw
            elif name == "probability":
                yield predictor.probabilities(raw)
            elif name == "prediction":
                yield predictor.decide(raw)
            else:
                yield _contributions(predictor, rows, ~np.isnan(raw[:, 0]))


def _contributions(predictor: LocalPredictor, rows: DecodedRows, valid: BoolArray) -> Float64Array:
    """Return ``LocalPredictor.contributions``, shape (n, k, d); 0 for invalid rows."""
    n, d = len(valid), predictor.n_features
    found = np.zeros((n, predictor.n_outputs, d))
    for start, stop in _pieces(n, d):
        mine = valid[start:stop]
        X = rows.dense(start, stop, d)[mine]
        found[start:stop][mine] = predictor.explainer.contributions(X)
    return found


def _pieces(n: int, d: int) -> Iterator[tuple[int, int]]:
    step = BLOCK_ROWS * max(1, _PIECE_BYTES // (4 * max(d, 1) * BLOCK_ROWS))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def _arrow(values: FloatArray, valid: BoolArray) -> pa.Array:
    """Convert numbers, shape (n,), or lists of them, nested for more axes; null where not valid."""
    mask = None if valid.all() else pa.array(~valid)
    if values.ndim == 1:
        return pa.array(values, mask=None if mask is None else ~valid)
    n, k, *others = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    flat = _arrow(np.ascontiguousarray(values).reshape(-1, *others), np.ones(n * k, dtype=bool))
    return pa.ListArray.from_arrays(offsets, flat, mask=mask)


def _objects(values: FloatArray, valid: BoolArray) -> pd.Series:
    """Convert numbers or lists to a pandas column, None where not valid."""
    rows: list[Any] = list(values)
    if values.ndim == 3:
        rows = [list(row) for row in rows]
    column = pd.Series(rows if values.ndim > 1 else values, dtype=object)
    column[~valid] = None
    return column
