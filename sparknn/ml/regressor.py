"""The neural network regressor and its model."""

from __future__ import annotations

import logging
from typing import Any, Self, Unpack

import numpy as np
from pyspark.ml.regression import RegressionModel, Regressor
from pyspark.sql.types import StructField

from sparknn.core.nn.network import Network
from sparknn.engine.interface import DataError, Engine
from sparknn.ml.estimator import NetworkEstimator
from sparknn.ml.keywords import RegressorKeywords, documented
from sparknn.ml.model import RegressionNetworkModel
from sparknn.ml.params import RegressorParams, model_handle_invalid
from sparknn.ml.standardize import target_standardizer
from sparknn.ml.training_setup import Target

log = logging.getLogger("sparknn")

# Deviations that a target's mean may be away from 0 before float32 is too coarse for it.
_FARTHEST = 1e6
# Labels between these sizes leave room for errors above and below them in float32, whose whole
# precision is between 1.2e-38 and 3e38.
_SMALLEST, _LARGEST = 1e-37, 1e37


class NeuralNetRegressionModel(RegressionNetworkModel, RegressionModel[Any], RegressorParams):
    """A trained network that predicts numbers; ``NeuralNetRegressor.fit`` makes it."""

    handleInvalid = model_handle_invalid()


@documented
class NeuralNetRegressor(NetworkEstimator, RegressorParams, Regressor[Any]):
    """A feed-forward network for one target or several, trained on every partition and averaged.

    Features are vectors (dense or sparse) or arrays of numbers. The label is a number, or a vector
    or an array for several targets; then predictions are vectors. Targets are standardised inside
    the fit, and predictions are in the targets' own units.

    Raises
    ------
    ParamError
        From the constructor and the setters, for all wrong params at once.
    SchemaError, DataError
        From ``fit``, for columns and rows that cannot be trained on.

    Examples
    --------
    >>> NeuralNetRegressor(hiddenLayers=[50, 50], loss="huber").getLoss()
    'huber'
    """

    _model_class = NeuralNetRegressionModel
    _classifies = False

    def __init__(self, **params: Unpack[RegressorKeywords]) -> None:
        super().__init__()
        self._set(**params)

    def setParams(self, **params: Unpack[RegressorKeywords]) -> Self:
        """Set several params at once; all that are wrong are reported together."""
        return self._set(**params)

    def _outputs(self) -> list[str]:
        return [self.getPredictionCol()]

    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        found = engine.statistics()
        spread = found.target_deviation
        sizes = np.abs(found.target_mean) + spread
        beyond = (sizes > _LARGEST) | ((sizes > 0) & (sizes < _SMALLEST))
        if beyond.any():
            size = sizes[beyond][0]
            raise DataError(
                f"Labels in column '{label.name}' are about {size:.2g}; the network predicts "
                f"float32 numbers, from {_SMALLEST:g} to {_LARGEST:g}. "
                f"{'Divide' if size > 1 else 'Multiply'} the labels by a constant."
            )
        far = (spread > 0) & (np.abs(found.target_mean) > _FARTHEST * spread)
        if far.any():
            log.warning(
                "The labels in column '%s' differ by little (%.3g) for their size (%.3g): "
                "predictions are float32, and lose much of that. Subtract a constant from them.",
                label.name,
                spread[far][0],
                found.target_mean[far][0],
            )
        return Target(engine.info.n_targets, self.getLoss(), target_standardizer(found))
