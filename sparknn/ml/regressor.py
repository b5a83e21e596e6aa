"""Train and use a neural network that predicts numbers."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.ml.regression import RegressionModel, Regressor
from pyspark.sql.types import StructField

from sparknn.core.config import Standardizer
from sparknn.core.nn.losses import quantile_loss_name
from sparknn.core.nn.network import Network
from sparknn.engine.interface import DataError, Engine, FeatureStatistics
from sparknn.ml.estimator import NetworkEstimator
from sparknn.ml.keywords import RegressorKeywords, documented
from sparknn.ml.labels import warn_of_outlier
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
        k, loss = engine.info.n_targets, self.getLoss()
        if loss == "poisson":
            return _counts(found, label.name)
        standardizer = target_standardizer(found, keep_constant=initial is not None)
        if loss == "quantile":
            if k > 1:
                raise DataError(
                    f"Column '{label.name}' has {k} targets; loss='quantile' expects one. Fit a "
                    "model for each."
                )
            normal, levels = NormalDist(), self.getQuantiles()
            null_loss = sum(normal.pdf(normal.inv_cdf(level)) for level in levels)
            return Target(
                len(levels), quantile_loss_name(levels), standardizer, null_loss=null_loss
            )
        if loss == "squared":
            warn_of_outlier(label.name, found, engine.info.n_rows)
        # Half the squared error of the mean, for targets of deviation 1.
        return Target(k, loss, standardizer, null_loss=0.5 * k)


def _counts(found: FeatureStatistics, label: str) -> Target:
    """Return targets in units of their mean, so that training starts near exp(0) = 1."""
    mean, low = found.target_mean, found.target_low
    assert low is not None
    if low.min() < 0 or mean.min() <= 0:
        raise DataError(
            f"Labels in column '{label}' have a minimum of {np.min(low):g} and a mean of "
            f"{mean.min():g}; loss='poisson' expects counts, 0 or more, of a mean above 0."
        )
    standardizer = Standardizer(np.zeros_like(mean), 1 / mean)
    # Half the deviance of their mean, to the second order.
    spread = found.target_deviation / mean
    return Target(len(mean), "poisson", standardizer, null_loss=float(0.5 * np.sum(spread**2)))
