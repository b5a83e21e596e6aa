"""List the keywords of the constructors, for editors, type checkers and ``help``.

Names and types only: docs, defaults and ranges are in ``sparknn.ml.params``. A test compares both.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, TypeVar

from pyspark.ml.param import Params

_Auto = Literal["auto"]
C = TypeVar("C", bound=type[Params])


class NetworkKeywords(TypedDict, total=False):
    """Keywords of both estimators."""

    featuresCol: str
    inputCols: Sequence[str]
    labelCol: str
    predictionCol: str
    weightCol: str | None
    validationIndicatorCol: str | None
    validationFraction: float
    handleInvalid: str
    standardization: bool
    numericEncoding: str
    categorical: bool
    categoricalFeatures: Sequence[str | int]
    hiddenLayers: Sequence[int]
    activation: str
    dropout: float
    seed: int
    solver: str
    stepSize: float | _Auto
    stepSizeSchedule: str
    momentum: float
    regParam: float | _Auto
    batchSize: int | _Auto
    localEpochs: int | _Auto
    miniBatchFraction: float
    period: str
    shuffle: bool
    maxChange: float
    maxIter: int | _Auto
    numWorkers: int
    averaging: str
    averagingMomentum: float | _Auto
    localState: str
    finalWeights: str
    validationMetric: str
    patience: int
    tol: float
    aggregationDepth: int
    initialModel: Any
    checkpointDir: str
    checkpointInterval: int
    shardDir: str
    verbose: bool
    contributionsCol: str | None


class ClassifierKeywords(NetworkKeywords, total=False):
    """Keywords of ``NeuralNetClassifier``."""

    probabilityCol: str
    rawPredictionCol: str
    thresholds: Sequence[float] | None
    classWeight: str
    numClasses: int


class PerceptronKeywords(ClassifierKeywords, total=False):
    """Keywords of ``MultilayerPerceptronClassifier``."""

    layers: Sequence[int]
    blockSize: int
    initialWeights: Any


class RegressorKeywords(NetworkKeywords, total=False):
    """Keywords of ``NeuralNetRegressor``."""

    loss: str
    quantiles: Sequence[float]


def documented(cls: C) -> C:
    """Decorate a class: show every param, with its default, in ``help`` and in editors."""
    stage = cls()
    keywords = [
        inspect.Parameter(
            param.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=stage.getOrDefault(param) if stage.hasDefault(param) else None,
        )
        for param in stage.params
    ]
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for name in ("__init__", "setParams"):
        vars(cls)[name].__signature__ = inspect.Signature([self_, *keywords])
    listed = "\n".join(f"{param.name}\n    {param.doc}" for param in stage.params)
    cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nParams\n------\n{listed}"
    return cls
