"""The neural network classifier and its model."""

from __future__ import annotations

from typing import Self, Unpack

from pyspark.ml.classification import ProbabilisticClassifier
from pyspark.sql.types import StructField

from sparknn.core.network import Network
from sparknn.engine.base import Engine
from sparknn.ml.estimator import NetworkEstimator
from sparknn.ml.fitting import Target
from sparknn.ml.keywords import ClassifierKeywords, documented
from sparknn.ml.labels import balanced_weights, count_classes, declared_classes
from sparknn.ml.model import ClassificationNetworkModel
from sparknn.ml.params import ClassifierParams, class_thresholds, model_handle_invalid


class NeuralNetClassificationModel(ClassificationNetworkModel, ClassifierParams):
    """A trained network that predicts classes; ``NeuralNetClassifier.fit`` makes it."""

    handleInvalid = model_handle_invalid()
    thresholds = class_thresholds()


@documented
class NeuralNetClassifier(NetworkEstimator, ClassifierParams, ProbabilisticClassifier):
    """A feed-forward network for two or more classes, trained on every partition and averaged.

    Features are vectors (dense or sparse) or arrays of numbers; labels are class numbers 0, 1, 2,
    ..., as StringIndexer makes them.

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
        """Set several params at once; all that are wrong are reported together."""
        return self._set(**params)

    def _outputs(self) -> list[str]:
        return [self.getRawPredictionCol(), self.getProbabilityCol(), self.getPredictionCol()]

    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        seen, declared = engine.facts.class_weights, declared_classes(label)
        if declared is None and initial is not None:
            # These rows may lack classes that the model to continue from knows.
            known = initial.layers[-1]
            declared = known if max(seen, default=0) < known else None
        n_classes = count_classes(label.name, seen, declared)
        if self.isDefined(self.thresholds) and len(self.getThresholds()) != n_classes:
            raise ValueError(
                f"thresholds has {len(self.getThresholds())} numbers; the labels have {n_classes} "
                f"classes. Give one number a class."
            )
        balanced = self.getClassWeight() == "balanced"
        class_weight = balanced_weights(seen, n_classes) if balanced else None
        return Target(n_classes, "crossEntropy", class_weight=class_weight)
