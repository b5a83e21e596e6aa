"""Predict with numpy alone: on executors, on the driver, in a web service.

A row's prediction does not depend on the other rows of a call (``row_blocks``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from sparknn.core.columns import InputColumns
from sparknn.core.contributions import Explainer
from sparknn.core.entries import Entries
from sparknn.core.forward import ForwardPass
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.losses import softmax
from sparknn.core.nn.network import Network
from sparknn.core.types import Float32Array, Float64Array, FloatArray


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
    baseline : ndarray, shape (inputs,), float32, optional
        Mean of the network's inputs in training, which ``contributions`` compares with.
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
    baseline: Float32Array | None = field(default=None, repr=False)
    inputs: InputColumns | None = field(default=None, repr=False)

    @property
    def n_features(self) -> int:
        return self.forward.n_features

    @property
    def n_outputs(self) -> int:
        return self.forward.n_outputs

    @property
    def classifies(self) -> bool:
        return self.network.loss_fn.classifies

    def __getstate__(self) -> dict[str, Any]:
        # Plain values only, so that pickles stay readable when private fields change.
        return {
            "layers": self.network.layers,
            "activation": self.network.activation,
            "loss": self.network.loss,
            "theta": _to_bytes(self.theta),
            "thresholds": self.thresholds,
            "encoding": None if self.encoding is None else self.encoding.to_json(),
            "input_offset": _to_list(self.input_offset),
            "output_offset": _to_list(self.output_offset),
            "baseline": None if self.baseline is None else _to_bytes(self.baseline),
            "inputs": None if self.inputs is None else self.inputs.to_json(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = Network(state["layers"], state["activation"], state["loss"])
        theta = np.frombuffer(state["theta"], dtype="<f4")
        baseline = state.get("baseline")
        encoding = state.get("encoding") and Encoding.from_json(state["encoding"])
        self.__dict__.update(
            network=network,
            theta=theta,
            thresholds=state["thresholds"],
            encoding=encoding,
            input_offset=_from_list(state.get("input_offset")),
            output_offset=_from_list(state.get("output_offset")),
            baseline=None if baseline is None else np.frombuffer(baseline, dtype="<f4"),
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
        return _all_valid(self.outputs(self._features(X)))

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

    def contributions(self, X: ArrayLike | Mapping[str, Any]) -> Float64Array:
        """Compute what every feature contributes to every output of ``predict_raw``.

        Integrated gradients (see ``core.contributions``) from the mean of the training rows: those
        of a row add up to its outputs less those of the mean, but for rounding in float32. Features
        that are encoded start at the mean of their inputs, such as the shares of a category's
        values.

        Returns
        -------
        ndarray, shape (n, k, d), float64
            Of logits for a classifier.

        Raises
        ------
        ValueError
            As ``predict_raw``; or if the model does not know the mean.
        """
        rows: Any = X
        dense = self._features(rows.toarray() if hasattr(rows, "tocsr") else rows)
        _all_valid(self.outputs(dense))
        return self.explainer.contributions(dense)

    @cached_property
    def explainer(self) -> Explainer:
        """Compute contributions of valid rows; ValueError without a baseline."""
        if self.baseline is None:
            raise ValueError(
                "The model does not know the mean of its training rows, which contributions start "
                "from: it was made from parameters, or fitted by an older version. Fit it again."
            )
        return Explainer(self.forward, self.baseline)

    def outputs(self, X: FloatArray) -> Float64Array:
        """Compute ``predict_raw``; rows that are invalid become rows of NaN.

        A row is invalid if a value is not finite in float32 (a missing one, unless the encoding
        replaces it), or if it overflows in the network.

        Parameters
        ----------
        X : ndarray, shape (n, d)
        """
        return self._plus_offset(self.forward.outputs(X))

    @cached_property
    def forward(self) -> ForwardPass:
        """Compute the last layer, without the offset of the targets."""
        return ForwardPass(self.network, self.theta, self.encoding, self.input_offset)

    def _plus_offset(self, raw: Float64Array) -> Float64Array:
        return raw if self.output_offset is None else raw + self.output_offset

    def outputs_of(self, rows: Entries) -> Float64Array:
        """``outputs`` of rows that are given by their entries: to the byte the same numbers."""
        return self._plus_offset(self.forward.outputs_of(rows))

    def probabilities(self, raw: Float64Array) -> Float64Array:
        """Convert ``predict_raw`` to ``predict_proba``."""
        return np.asarray(softmax(raw), dtype=np.float64)

    def decide(self, raw: Float64Array) -> Float64Array:
        """Convert ``predict_raw`` to ``predict``. Ties go to the lowest class."""
        if not self.classifies:
            response = self.network.loss_fn.response
            raw = raw if response is None else np.asarray(response(raw), dtype=np.float64)
            return raw[:, 0] if raw.shape[1] == 1 else raw
        if self.thresholds is None:
            return raw.argmax(axis=1).astype(np.float64)
        # As in Spark, a class of threshold 0 wins if its probability is above 0 (inf), and never if
        # it is 0 (NaN).
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = self.probabilities(raw) / np.asarray(self.thresholds)
        scaled[np.isnan(scaled)] = -np.inf
        return scaled.argmax(axis=1).astype(np.float64)

    def to_onnx(self, path: str | PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the predictor as an ONNX file; needs ``sparknn[onnx]``.

        Input ``X``; outputs ``label`` and ``probabilities``, or ``variable``: see
        ``sparknn.integrations.onnx``. Results differ by rounding in float32 from this object's.

        Parameters
        ----------
        path : str or path
            On this machine.
        metadata : mapping of str to str, optional
            Properties of the file.
        """
        from sparknn.integrations.onnx import save_onnx

        save_onnx(
            self.forward,
            path,
            output_offset=self.output_offset,
            thresholds=self.thresholds,
            metadata=metadata,
        )

    def _features(self, X: ArrayLike | Mapping[str, Any]) -> FloatArray:
        """Return the features of rows: those of a table by the names of its columns."""
        if self.inputs is not None and (isinstance(X, Mapping) or hasattr(X, "columns")):
            return self.inputs.features(cast(Any, X))
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


def _to_bytes(values: Float32Array) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


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
