"""Predict with a fitted network: the base of both models.

The state of a model is its Params, ``network``, ``theta`` and ``summary``; the last three never
change after construction, so copies share them, and the broadcast of a large network as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pyspark.ml.base import PredictionModel
from pyspark.ml.classification import ProbabilisticClassificationModel
from pyspark.ml.linalg import DenseVector, SparseVector, Vector
from pyspark.ml.param.shared import HasHandleInvalid
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame

from sparknn.core.columns import InputColumns
from sparknn.core.entries import Entries
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.losses import quantiles_of
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine.broadcast import CachedBroadcast
from sparknn.ml.checked_params import CheckedParams, setter
from sparknn.ml.evaluation import ClassificationSummary, RegressionSummary
from sparknn.ml.explain import Explanation
from sparknn.ml.input_columns import FEATURES, assemble
from sparknn.ml.params import model_handle_invalid, thresholds_for
from sparknn.ml.persistence import ModelReader, ModelWriter
from sparknn.ml.schema import check_is_dataframe, missing_problem, raise_all, with_fields
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.transform import Outputs, append_predictions

_LOCALLY = "; or predict without Spark, by model.toLocal().predict(X)"


class NetworkModel(
    CheckedParams, PredictionModel[Any], HasHandleInvalid, MLReadable[Any], MLWritable
):
    """Base of both models.

    Parameters
    ----------
    network : Network, optional
    theta : ndarray, shape (P,), float32, optional
    summary : TrainingSummary, optional
    encoding : Encoding, optional
        How features become the network's inputs; by default, they are the inputs.
    feature_names : sequence of str, optional
        Without arguments the model is empty, as Spark's readers construct it.
    inputs : InputColumns, optional
        The columns that features are assembled from.
    input_offset, output_offset : ndarray, float64, optional
        See ``LocalPredictor``.
    explanation : Explanation, optional
        What predictions are explained by.

    Notes
    -----
    ``transform`` raises SchemaError before any job if the schema shows a problem. A row of another
    number of features fails the job, whatever ``handleInvalid`` is.
    """

    handleInvalid = model_handle_invalid()
    setHandleInvalid = setter(handleInvalid)

    def __init__(
        self,
        network: Network | None = None,
        theta: Float32Array | None = None,
        summary: TrainingSummary | None = None,
        encoding: Encoding | None = None,
        feature_names: Sequence[str] | None = None,
        *,
        inputs: InputColumns | None = None,
        input_offset: Float64Array | None = None,
        output_offset: Float64Array | None = None,
        explanation: Explanation | None = None,
    ) -> None:
        super().__init__()
        self._encoding = encoding
        self._inputs = inputs
        self._feature_names = None if feature_names is None else list(feature_names)
        self._network = network
        self._theta = None if theta is None else _frozen(theta)
        self._summary = summary
        self._input_offset, self._output_offset = input_offset, output_offset
        self._explanation = explanation
        self._broadcast: CachedBroadcast[LocalPredictor] = CachedBroadcast()
        if (network is None) != (theta is None):
            raise ValueError("Only one of network and theta was given; expected both, or neither.")
        if network is not None and theta is not None and theta.shape != (network.n_params,):
            raise ValueError(
                f"theta has shape {theta.shape}; expected ({network.n_params},) for a network of "
                f"layers {list(network.layers)}."
            )

    @property
    def network(self) -> Network:
        """Layer sizes, activation and loss."""
        if self._network is None:
            raise ValueError(
                f"{self.uid} has no network: it was constructed, not fitted. "
                f"Use {type(self).__name__}.load(path), or the fit method of an estimator."
            )
        return self._network

    @property
    def theta(self) -> Float32Array:
        """All parameters, shape (P,), float32, read-only; ``network.blocks`` has them by layer."""
        _ = self.network
        assert self._theta is not None
        return self._theta

    @property
    def weights(self) -> Float32Array:
        """Alias of ``theta``, as in MultilayerPerceptronClassificationModel."""
        return self.theta

    @property
    def layers(self) -> list[int]:
        """Layer sizes from inputs to outputs, such as ``[784, 300, 10]``.

        Encoded features are more inputs than features: see ``numFeatures``.
        """
        return list(self.network.layers)

    @property
    def numFeatures(self) -> int:
        """Number of features; -1 for an empty model."""
        if self._encoding is not None:
            return self._encoding.n_features
        return -1 if self._network is None else self._network.layers[0]

    @property
    def encoding(self) -> Encoding | None:
        """How features become the network's inputs; None if they are the inputs."""
        return self._encoding

    @property
    def featureNames(self) -> list[str] | None:
        """Names of the features, from the metadata of the training data; None if it had none."""
        return None if self._feature_names is None else list(self._feature_names)

    @property
    def featureImportances(self) -> Vector:
        """Share of each feature in the contributions to the outputs; sums to 1.

        The root mean square of a feature's contributions (see ``contributionsCol``) over up to 256
        training rows, summed over classes or targets. ``featureNames`` are in the same order.

        Raises
        ------
        RuntimeError
            If the model was not fitted, or on sparse rows.
        """
        if self._explanation is None or self._explanation.importances is None:
            raise RuntimeError(
                f"{self.uid} has no feature importances: a fit computes them, on dense rows. "
                "Fit such a model, or average the contributions of rows (contributionsCol)."
            )
        return DenseVector(self._explanation.importances)

    @property
    def hasSummary(self) -> bool:
        """Whether the model has a training summary."""
        return self._summary is not None

    @property
    def summary(self) -> TrainingSummary:
        """History of the training; RuntimeError if ``hasSummary`` is false."""
        if self._summary is None:
            raise RuntimeError(f"{self.uid} has no training summary; check hasSummary first.")
        return self._summary

    def predict(self, value: Vector | ArrayLike) -> float | Vector:  # type: ignore[override]
        """Predict one row, without a Spark job; bitwise equal to ``transform``.

        Parameters
        ----------
        value : Vector, list or ndarray, shape (d,)

        Returns
        -------
        float
            The class or target; a DenseVector for several targets.
        """
        local = self.toLocal()
        prediction = local.decide(self._raw(local, value))[0]
        return float(prediction) if prediction.ndim == 0 else DenseVector(prediction)

    def toLocal(self) -> LocalPredictor:
        """Return a predictor that needs numpy only: no Spark, no JVM, small to pickle.

        With ``inputCols``, it also predicts from tables of these columns, such as DataFrames of
        pandas.
        """
        return replace(self._predictor, thresholds=self._thresholds(), inputs=self._inputs)

    def toOnnx(self, path: str | PathLike[str]) -> None:
        """Write the model, with its thresholds, as an ONNX file; needs ``sparknn[onnx]``.

        The input ``X``, shape (batch, numFeatures), is a vector of features as in featuresCol.
        With inputCols it is what they are assembled into: numbers, booleans as 0 and 1, the code
        of a text (its place among ``values``), vectors. The outputs are ``label`` and
        ``probabilities``, or ``variable`` for a regression.

        Parameters
        ----------
        path : str or path
            On the driver's disk. Among the file's properties are ``featureNames`` and
            ``inputCols``, in JSON, if the model has them.

        Raises
        ------
        ImportError
            If onnx is absent.
        ValueError
            If the network takes more than 2 GiB.
        """
        known = {
            "featureNames": self._feature_names,
            "inputCols": None if self._inputs is None else self._inputs.to_json(),
        }
        metadata = {name: json.dumps(value) for name, value in known.items() if value is not None}
        self.toLocal().to_onnx(path, metadata)

    @property
    def _predictor(self) -> LocalPredictor:
        return LocalPredictor(
            self.network,
            self.theta,
            encoding=self._encoding,
            input_offset=self._input_offset,
            output_offset=self._output_offset,
            baseline=None if self._explanation is None else self._explanation.baseline,
        )

    def write(self) -> ModelWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> ModelReader[Any]:
        """Return a reader: ``Model.read().load(path)``."""
        return ModelReader(cls)

    def __repr__(self) -> str:
        if self._network is None:
            return f"{type(self).__name__}: uid={self.uid}, empty"
        sizes = "-".join(str(size) for size in self._network.layers)
        return f"{type(self).__name__}: uid={self.uid}, layers={sizes}"

    def _transform(self, dataset: DataFrame) -> DataFrame:
        check_is_dataframe(dataset, "transform", _LOCALLY)
        features, names = self.getFeaturesCol(), [self.getFeaturesCol()]
        if self._inputs is not None:
            names = self._inputs.names
        rows, added = with_fields(dataset, names)
        if self._inputs is not None:
            features, rows, added = FEATURES, assemble(self._inputs, rows), [*added, FEATURES]
        predicted = append_predictions(
            rows,
            # Spark assembles the columns.
            replace(self.toLocal(), inputs=None),
            self._broadcast,
            features=features,
            outputs=replace(self._outputs(), contributions=self._contributions_col()),
            handle_invalid=self.getHandleInvalid(),
            names=self._feature_names,
        )
        return predicted.drop(*added) if added else predicted

    def _outputs(self) -> Outputs:
        return Outputs(self.getPredictionCol())

    def _contributions_col(self) -> str:
        name = self._optional_column("contributionsCol") or ""
        if name:
            _ = self._predictor.explainer  # fails before any job
        return name

    def _thresholds(self) -> tuple[float, ...] | None:
        return None

    def _evaluated(self, dataset: DataFrame) -> tuple[DataFrame, dict[str, str]]:
        """Return rows with label and prediction, and the columns to measure, by their role."""
        check_is_dataframe(dataset, "evaluate")
        label = self.getLabelCol()
        weight = self._optional_column("weightCol") or ""
        rows, _ = with_fields(dataset, [label, weight])
        problems = [missing_problem(rows.schema, label, "labelCol", "labels")]
        if weight:
            problems.append(missing_problem(rows.schema, weight, "weightCol", "weights"))
        raise_all(problems)
        names = {"label": label, "prediction": self.getPredictionCol(), "weight": weight}
        return self.transform(rows), names

    def _raw(self, local: LocalPredictor, value: Vector | ArrayLike) -> Float64Array:
        if isinstance(value, SparseVector) and len(value) == local.n_features:
            return local.predict_raw_of(
                Entries(value.values, value.indices, np.array([len(value.indices)]))
            )
        row = value.toArray() if isinstance(value, Vector) else np.asarray(value)
        if row.shape != (local.n_features,):
            raise ValueError(
                f"The features have shape {row.shape}; expected one row, ({local.n_features},). "
                "Use toLocal().predict(X) for many rows."
            )
        return local.predict_raw(row[None])


class ClassificationNetworkModel(NetworkModel, ProbabilisticClassificationModel):
    """A network that predicts classes, as Spark's probabilistic classifiers do."""

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return self.network.layers[-1]

    def predictRaw(self, value: Vector | ArrayLike) -> Vector:
        """Return the logits of one row, one per class, without a Spark job."""
        return DenseVector(self._raw(self.toLocal(), value)[0])

    def predictProbability(self, value: Vector | ArrayLike) -> Vector:
        """Return the probabilities of one row, one per class, without a Spark job."""
        local = self.toLocal()
        return DenseVector(local.probabilities(self._raw(local, value))[0])

    def evaluate(self, dataset: DataFrame) -> ClassificationSummary:
        """Predict rows that have labels, and measure how good the predictions are.

        Weighted by ``weightCol`` if the model has one.

        Raises
        ------
        SchemaError, TypeError
        """
        rows, names = self._evaluated(dataset)
        return ClassificationSummary(rows, **names, probability=self.getProbabilityCol())

    def _outputs(self) -> Outputs:
        return Outputs(
            self.getPredictionCol(), self.getProbabilityCol(), self.getRawPredictionCol()
        )

    def _thresholds(self) -> tuple[float, ...] | None:
        return thresholds_for(self, self.numClasses)


class RegressionNetworkModel(NetworkModel):
    """A network that predicts one target, or a vector of them."""

    @property
    def numTargets(self) -> int:
        """Number of targets; several quantiles are of one."""
        return 1 if quantiles_of(self.network.loss) else self.network.layers[-1]

    def evaluate(self, dataset: DataFrame) -> RegressionSummary:
        """Predict rows that have targets, and measure how good the predictions are.

        Weighted by ``weightCol`` if the model has one.

        Raises
        ------
        SchemaError, TypeError
        """
        rows, names = self._evaluated(dataset)
        return RegressionSummary(rows, **names, loss=self.network.loss)


def _frozen(theta: Float32Array) -> Float32Array:
    copied = np.array(theta, dtype=np.float32)
    copied.setflags(write=False)
    return copied
