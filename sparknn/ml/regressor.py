"""The neural network regressor and its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, Unpack

from pyspark.ml.regression import RegressionModel, Regressor
from pyspark.sql.types import StructField

from sparknn.engine.base import Facts, Moments
from sparknn.ml.estimator import NetworkEstimator
from sparknn.ml.fitting import Target
from sparknn.ml.keywords import RegressorKeywords, documented
from sparknn.ml.model import RegressionNetworkModel
from sparknn.ml.params import RegressorParams, model_handle_invalid
from sparknn.ml.standardize import target_standardizer


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

    def _target(self, facts: Facts, moments: Callable[[], Moments], label: StructField) -> Target:
        return Target(facts.n_targets, self.getLoss(), target_standardizer(moments()))
