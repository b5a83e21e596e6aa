"""Train and use a neural network that predicts classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from pyspark.ml.classification import ProbabilisticClassifier
from pyspark.sql import DataFrame
from pyspark.sql.types import StructField

from sparknn.core.nn.network import Network
from sparknn.engine.interface import DataSpec, Engine
from sparknn.ml.checked_params import ParamError
from sparknn.ml.estimator import NetworkEstimator
from sparknn.ml.keywords import ClassifierKeywords, documented
from sparknn.ml.labels import (
    DeclaredClasses,
    balanced_weights,
    count_classes,
    declared_classes,
    entropy,
    warn_of_identifier,
    warn_of_one_class,
)
from sparknn.ml.model import ClassificationNetworkModel
from sparknn.ml.params import (
    ClassifierParams,
    HasNumClasses,
    class_thresholds,
    model_handle_invalid,
    thresholds_for,
)
from sparknn.ml.training_setup import Target

if TYPE_CHECKING:
    from typing import Self, Unpack


class NeuralNetClassificationModel(ClassificationNetworkModel, ClassifierParams):
    """A fitted network that predicts classes; ``NeuralNetClassifier.fit`` returns it."""

    handleInvalid = model_handle_invalid()
    thresholds = class_thresholds()


@documented
class NeuralNetClassifier(
    NetworkEstimator, ClassifierParams, HasNumClasses, ProbabilisticClassifier
):
    """A feed-forward network for two or more classes, trained on every partition and averaged.

    Features are vectors (dense or sparse) or arrays of numbers; labels are class numbers 0, 1, 2,
    ..., as StringIndexer makes them. It also stores the number of classes as metadata; for other
    labels, set ``numClasses`` if some rows may lack the largest one.

    Raises
    ------
    ParamError
        From the constructor and the setters, for all wrong params at once.
    SchemaError, DataError
        From ``fit``, for columns and rows that cannot be trained on.

    Examples
    --------
    >>> NeuralNetClassifier(hiddenLayers=[300], maxIter=10).getMaxIter()
    10
    """

    thresholds = class_thresholds()
    _model_class = NeuralNetClassificationModel
    _classifies = True

    def __init__(self, **params: Unpack[ClassifierKeywords]) -> None:
        super().__init__()
        self._set(**params)

    def setParams(self, **params: Unpack[ClassifierKeywords]) -> Self:
        """Set several params; one error reports all that are wrong."""
        return self._set(**params)

    def _output_names(self) -> list[str]:
        return [self.getRawPredictionCol(), self.getProbabilityCol(), self.getPredictionCol()]

    def _spec(self, dataset: DataFrame, n_slots: Callable[[], int]) -> DataSpec:
        spec = super()._spec(dataset, n_slots)
        # Params that contradict the column's metadata must fail before any job runs.
        declared = self._declared(dataset.schema[spec.label])
        if declared is not None:
            thresholds_for(self, declared.n_classes)
        return spec

    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        seen = engine.info.class_weights
        declared = self._declared(label) or self._implied(max(seen, default=0), initial)
        n_classes = count_classes(label.name, seen, declared)
        warn_of_identifier(label.name, n_classes, engine.info.n_rows)
        warn_of_one_class(label.name, seen)
        thresholds_for(self, n_classes)
        if self.getValidationMetric() == "areaUnderROC" and n_classes != 2:
            problem = f" = 'areaUnderROC'; it needs two classes, not {n_classes}. Use 'f1'."
            raise ParamError(type(self).__name__, {"validationMetric": problem})
        balanced = self.getClassWeight() == "balanced"
        class_weight = balanced_weights(seen, n_classes) if balanced else None
        weights = np.array([*seen.values()])
        if class_weight is not None:
            weights *= class_weight[[*seen]]
        return Target(
            n_classes,
            "crossEntropy",
            class_weight=class_weight,
            null_loss=entropy(weights),
        )

    def _declared(self, label: StructField) -> DeclaredClasses | None:
        """Return the classes that the label column or ``numClasses`` declares.

        Raises
        ------
        ParamError
            If they contradict each other.
        """
        found, n_classes = declared_classes(label), self.getNumClasses()
        if not n_classes:
            return found
        if found is not None and found.n_classes != n_classes:
            problem = (
                f" = {n_classes}; label column '{label.name}' has {found.n_classes} classes by "
                f"{found.source}. Leave numClasses at 0. {found.hint}"
            )
            raise ParamError(type(self).__name__, {"numClasses": problem})
        hint = "Raise numClasses, or look for labels that are not classes."
        return DeclaredClasses(n_classes, "numClasses", hint)

    def _implied(self, largest: int, initial: Network | None) -> DeclaredClasses | None:
        """Return the classes of the initial model or the thresholds, if the rows have fewer."""
        if initial is not None:
            known = DeclaredClasses(initial.layers[-1], "the initial model")
        elif self.isDefined(self.thresholds):
            known = DeclaredClasses(len(self.getThresholds()), "the length of thresholds")
        else:
            return None
        return known if known.n_classes > largest else None
