"""What the fitted models have in common: a network, its parameters, and how it predicts.

A model's whole state is its Params, ``network``, ``theta`` and ``summary``; the last three are
never changed after construction, so copies may share them. They share too the broadcast of a large
network to the executors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pyspark.ml.base import PredictionModel
from pyspark.ml.classification import ProbabilisticClassificationModel
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.ml.param.shared import HasHandleInvalid
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame

from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine.broadcast import CachedBroadcast
from sparknn.ml.checked_params import CheckedParams, setter
from sparknn.ml.params import model_handle_invalid
from sparknn.ml.persistence import ModelReader, ModelWriter
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.transform import Outputs, append_predictions


class NetworkModel(
    CheckedParams, PredictionModel[Any], HasHandleInvalid, MLReadable[Any], MLWritable
):
    """Base of both models.

    Parameters
    ----------
    network : Network, optional
    theta : ndarray, shape (P,), float32, optional
    summary : TrainingSummary, optional
        Without arguments the model is empty, which is what Spark's readers construct.

    Notes
    -----
    ``transform`` raises SchemaError before any job where the schema shows what is wrong. A row of
    another number of features stops the job, whatever ``handleInvalid`` says.
    """

    handleInvalid = model_handle_invalid()
    setHandleInvalid = setter(handleInvalid)

    def __init__(
        self,
        network: Network | None = None,
        theta: Float32Array | None = None,
        summary: TrainingSummary | None = None,
    ) -> None:
        super().__init__()
        self._network = network
        self._theta = None if theta is None else _frozen(theta)
        self._summary = summary
        self._broadcast: CachedBroadcast[LocalPredictor] = CachedBroadcast()
        if (network is None) != (theta is None):
            raise ValueError("A model takes a network and its theta, or neither.")
        if network is not None and theta is not None and theta.shape != (network.n_params,):
            raise ValueError(
                f"theta has shape {theta.shape}; a network of layers {list(network.layers)} "
                f"takes ({network.n_params},)."
            )

    @property
    def network(self) -> Network:
        """Layer sizes, activation and loss."""
        if self._network is None:
            raise ValueError(
                f"{self.uid} holds no network: it was constructed, not fitted. "
                f"Use {type(self).__name__}.load(path) or an estimator's fit."
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
        """``theta`` by the name that MultilayerPerceptronClassificationModel gives it."""
        return self.theta

    @property
    def layers(self) -> list[int]:
        """Layer sizes from the inputs to the outputs, ``[784, 300, 10]``."""
        return list(self.network.layers)

    @property
    def numFeatures(self) -> int:
        """Features the network takes; -1 for an empty model."""
        return -1 if self._network is None else self._network.layers[0]

    @property
    def hasSummary(self) -> bool:
        """Whether the model knows how it was trained."""
        return self._summary is not None

    @property
    def summary(self) -> TrainingSummary:
        """How the model was trained.

        Raises
        ------
        RuntimeError
            If the model has no summary.
        """
        if self._summary is None:
            raise RuntimeError(f"{self.uid} has no training summary; ask hasSummary first.")
        return self._summary

    def predict(self, value: Vector | ArrayLike) -> float | Vector:  # type: ignore[override]
        """Predict one row, without a Spark job; equals ``transform`` to the last bit.

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
        """The network on numpy alone: no Spark, no JVM, small to pickle."""
        return LocalPredictor(self.network, self.theta, self._thresholds())

    def write(self) -> ModelWriter:
        """A writer: ``model.write().overwrite().save(path)``."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> ModelReader[Any]:
        """A reader: ``Model.read().load(path)``."""
        return ModelReader(cls)

    def __repr__(self) -> str:
        if self._network is None:
            return f"{type(self).__name__}: uid={self.uid}, empty"
        sizes = "-".join(str(size) for size in self._network.layers)
        return f"{type(self).__name__}: uid={self.uid}, layers={sizes}"

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return append_predictions(
            dataset,
            self.toLocal(),
            self._broadcast,
            features=self.getFeaturesCol(),
            outputs=self._outputs(),
            handle_invalid=self.getHandleInvalid(),
        )

    def _outputs(self) -> Outputs:
        return Outputs(prediction=self.getPredictionCol())

    def _thresholds(self) -> tuple[float, ...] | None:
        return None

    def _raw(self, local: LocalPredictor, value: Vector | ArrayLike) -> Float64Array:
        row = value.toArray() if isinstance(value, Vector) else np.asarray(value)
        if row.shape != (local.n_features,):
            raise ValueError(
                f"The features have shape {row.shape}; {self.uid} takes one row of "
                f"{local.n_features} features. Use toLocal().predict(X) for many."
            )
        return local.predict_raw(row[None])


class ClassificationNetworkModel(NetworkModel, ProbabilisticClassificationModel):
    """A network that predicts classes, as Spark's probabilistic classifiers do."""

    @property
    def numClasses(self) -> int:
        """Values that the label can take."""
        return self.network.layers[-1]

    def predictRaw(self, value: Vector | ArrayLike) -> Vector:
        """The logits of one row, one a class, without a Spark job."""
        return DenseVector(self._raw(self.toLocal(), value)[0])

    def predictProbability(self, value: Vector | ArrayLike) -> Vector:
        """The probabilities of one row, one a class, without a Spark job."""
        local = self.toLocal()
        return DenseVector(local.probabilities(self._raw(local, value))[0])

    def _outputs(self) -> Outputs:
        return Outputs(
            prediction=self.getPredictionCol(),
            probability=self.getProbabilityCol(),
            raw=self.getRawPredictionCol(),
        )

    def _thresholds(self) -> tuple[float, ...] | None:
        if not self.isDefined(self.thresholds):
            return None
        thresholds = tuple(self.getThresholds())
        if len(thresholds) != self.numClasses:
            raise ValueError(
                f"thresholds has {len(thresholds)} values; the model has {self.numClasses} "
                "classes. Give one a class."
            )
        if min(thresholds) < 0 or sum(thresholds) <= 0 or thresholds.count(0.0) > 1:
            raise ValueError(
                f"thresholds is {list(thresholds)}; expected values of 0 or more, of which at most "
                "one is 0."
            )
        return thresholds


class RegressionNetworkModel(NetworkModel):
    """A network that predicts one target, or a vector of them."""

    @property
    def numTargets(self) -> int:
        """Targets that the network predicts."""
        return self.network.layers[-1]


def _frozen(theta: Float32Array) -> Float32Array:
    own = np.array(theta, dtype=np.float32)
    own.setflags(write=False)
    return own
