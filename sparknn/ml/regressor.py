"""Train and use a neural network that predicts numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from typing import Self, Unpack

# Sizes of labels that leave room for errors above and below them in float32, which has its full
# precision between 1.2e-38 and 3e38.
_SMALLEST, _LARGEST = 1e-37, 1e37


class NeuralNetRegressionModel(RegressionNetworkModel, RegressionModel[Any], RegressorParams):
    """A fitted network that predicts numbers; ``NeuralNetRegressor.fit`` returns it."""

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
        """Set several params; one error reports all that are wrong."""
        return self._set(**params)

    def _output_names(self) -> list[str]:
        return [self.getPredictionCol()]

    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        found = engine.statistics()
        spread = found.target_deviation
        sizes = np.abs(found.target_mean) + spread
        beyond = (sizes > _LARGEST) | ((sizes > 0) & (sizes < _SMALLEST))
        if beyond.any():
            size = sizes[beyond][0]
            raise DataError(
                f"Labels in column '{label.name}' are about {size:.2g}; expected sizes from "
                f"{_SMALLEST:g} to {_LARGEST:g}, as predictions are float32. "
                f"{'Divide' if size > 1 else 'Multiply'} the labels by a constant."
            )
        standardizer = target_standardizer(found, keep_constant=initial is not None)
        k = engine.info.n_targets
        # Half the squared error of the mean, for targets of deviation 1.
        return Target(k, self.getLoss(), standardizer, null_loss=0.5 * k)
