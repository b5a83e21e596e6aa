"""The neural network classifier and its model."""

from __future__ import annotations

from typing import Self, Unpack

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
    warn_of_identifier,
)
from sparknn.ml.model import ClassificationNetworkModel
from sparknn.ml.params import (
    ClassifierParams,
    HasNumClasses,
    class_thresholds,
    model_handle_invalid,
)
from sparknn.ml.training_setup import Target


class NeuralNetClassificationModel(ClassificationNetworkModel, ClassifierParams):
    """A trained network that predicts classes; ``NeuralNetClassifier.fit`` makes it."""

    handleInvalid = model_handle_invalid()
    thresholds = class_thresholds()


@documented
class NeuralNetClassifier(
    NetworkEstimator, ClassifierParams, HasNumClasses, ProbabilisticClassifier
):
    """A feed-forward network for two or more classes, trained on every partition and averaged.

    Features are vectors (dense or sparse) or arrays of numbers; labels are class numbers 0, 1, 2,
    ..., as StringIndexer makes them. How many classes there are is in the metadata that it leaves;
    for other labels, of which some rows may lack the largest, set ``numClasses``.

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

    def _spec(self, dataset: DataFrame) -> DataSpec:
        spec = super()._spec(dataset)
        # Params that contradict the column's metadata shall fail before any job runs.
        declared = self._declared(dataset.schema[spec.label])
        if declared is not None:
            self._check_thresholds(declared.n_classes)
        return spec

    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        seen = engine.info.class_weights
        declared = self._declared(label) or self._implied(max(seen, default=0), initial)
        n_classes = count_classes(label.name, seen, declared)
        warn_of_identifier(label.name, n_classes, engine.info.n_rows)
        self._check_thresholds(n_classes)
        balanced = self.getClassWeight() == "balanced"
        class_weight = balanced_weights(seen, n_classes) if balanced else None
        return Target(n_classes, "crossEntropy", class_weight=class_weight)

    def _declared(self, label: StructField) -> DeclaredClasses | None:
        """How many classes the label column or ``numClasses`` declares.

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
                f" = {n_classes}; label column '{label.name}' has {found.n_classes} classes: "
                f"{found.by} declares them. Leave numClasses at 0. {found.hint}"
            )
            raise ParamError(type(self).__name__, {"numClasses": problem})
        hint = "Raise numClasses, or look for labels that are no classes."
        return DeclaredClasses(n_classes, "numClasses", hint)

    def _implied(self, largest: int, initial: Network | None) -> DeclaredClasses | None:
        """Classes known to the model to continue from or the thresholds, if not to these rows."""
        if initial is not None:
            known = DeclaredClasses(initial.layers[-1], "the model to continue from")
        elif self.isDefined(self.thresholds):
            known = DeclaredClasses(len(self.getThresholds()), "the length of thresholds")
        else:
            return None
        return known if known.n_classes > largest else None

    def _check_thresholds(self, n_classes: int) -> None:
        if self.isDefined(self.thresholds) and len(self.getThresholds()) != n_classes:
            raise ValueError(
                f"thresholds has {len(self.getThresholds())} numbers; the labels have {n_classes} "
                f"classes. Give one number a class."
            )
