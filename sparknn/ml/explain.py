"""What a fit computes so that its model can explain predictions: a baseline, and importances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparknn.core.contributions import Explainer, importances, mean_inputs
from sparknn.core.predictor import LocalPredictor
from sparknn.core.training.fit_state import FitState
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine.interface import Engine
from sparknn.ml.encode import SAMPLE_ROWS
from sparknn.ml.standardize import Folding

# Rows of features that are inputs as they are; and their numbers, at most.
_PLAIN_ROWS, _MOST_NUMBERS = 1000, 1 << 22
# Rows that importances are computed from, and products that this may take: some 0.3 s. On eight
# tables, 250 rows and 1,000 rank features alike (0.77 to 0.99 with permutation importances).
_MOST_ROWS, _LEAST_ROWS, _MOST_PRODUCTS = 256, 32, 200_000_000
# Intervals of importances, for two or more hidden layers: on random networks, shares are within 2 %
# of those with 64, and 784-512-512-100 takes 0.6 s instead of some 5.
_INTERVALS = 4


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model knows of its training rows besides its network.

    Parameters
    ----------
    baseline : ndarray, shape (inputs,), float32
        See ``LocalPredictor``.
    importances : ndarray, shape (d,), optional
        See ``core.contributions.importances``; None after a fit on sparse rows.
    """

    baseline: Float32Array
    importances: Float64Array | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values that ``from_json`` takes; that of sparse rows is mostly 0."""
        there = np.flatnonzero(self.baseline)
        return {
            "baseline": {"indices": there.tolist(), "values": self.baseline[there].tolist()},
            "importances": None if self.importances is None else self.importances.tolist(),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], n_inputs: int, n_features: int) -> Explanation:
        """Return the explanation whose ``to_json`` this is.

        Raises
        ------
        KeyError, IndexError, TypeError, ValueError
            If it is not one, or of other sizes.
        """
        baseline, found = np.zeros(n_inputs, dtype=np.float32), saved["importances"]
        baseline[saved["baseline"]["indices"]] = saved["baseline"]["values"]
        found = None if found is None else np.array(found, dtype=np.float64)
        if found is not None and found.shape != (n_features,):
            raise ValueError(f"{found.shape} importances of {n_features} features")
        if not np.isfinite(np.append(baseline, 0 if found is None else found)).all():
            raise ValueError("numbers that are not finite")
        return cls(baseline, found)


def rows_to_explain(engine: Engine, fit: FitState) -> Float32Array | None:
    """Return a sample of the training rows, as they were ingested; None if they are sparse.

    It is the sample that an encoding was chosen from, if there is one: no other job.
    """
    if engine.info.sparse:
        return None
    if fit.config.encoding is not None:
        return engine.sample(SAMPLE_ROWS)
    most = max(_LEAST_ROWS, _MOST_NUMBERS // engine.info.n_features)
    return engine.sample(min(_PLAIN_ROWS, most))


def explain(
    fit: FitState, local: LocalPredictor, rows: Float32Array | None, ingested: Float64Array | None
) -> Explanation:
    """Return the explanation of a fitted network.

    Parameters
    ----------
    fit : FitState
    local : LocalPredictor
        Its network.
    rows : ndarray, optional
        ``rows_to_explain``.
    ingested : ndarray, shape (d,), optional
        What was subtracted from the features at ingest.
    """
    X = None if rows is None else rows if ingested is None else rows + ingested
    standardizer = Folding.of(fit.config, ingested).features
    if fit.config.encoding is None and standardizer is not None:
        # The mean of all training rows.
        baseline = standardizer.shift.astype(np.float32)
    elif X is None:
        baseline = np.zeros(local.network.layers[0], dtype=np.float32)
    else:
        baseline = mean_inputs(local.forward, X)
    if X is None:
        return Explanation(baseline, None)
    # The products of a row: inputs by units once, and the layers above in every interval.
    first, *above = (a * b for a, b in pairwise(local.network.layers))
    n_intervals = _INTERVALS if len(above) > 1 else 1
    products = local.n_outputs * (first + n_intervals * sum(above))
    n_rows = int(np.clip(_MOST_PRODUCTS // products, _LEAST_ROWS, _MOST_ROWS))
    chosen = X[:: max(1, len(X) // n_rows)][:n_rows]
    explainer = Explainer(local.forward, baseline, n_intervals)
    return Explanation(baseline, importances(explainer, chosen))
