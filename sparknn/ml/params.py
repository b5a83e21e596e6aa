"""Every param of the estimators and their models, each declared once.

Spark's names and mixins wherever Spark has one; a param that Spark's mixin declares is declared
again only to give it our default, our range, or a doc that says what it means here.
"""

from __future__ import annotations

import os
from typing import Any

from pyspark.ml.base import Model
from pyspark.ml.param import TypeConverters
from pyspark.ml.param.shared import (
    HasAggregationDepth,
    HasBatchSize,
    HasCheckpointInterval,
    HasHandleInvalid,
    HasLoss,
    HasMaxIter,
    HasMomentum,
    HasRegParam,
    HasSeed,
    HasSolver,
    HasStandardization,
    HasStepSize,
    HasTol,
    HasValidationIndicatorCol,
    HasWeightCol,
)

from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.losses import LOSSES
from sparknn.core.nn.schedules import SCHEDULES
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.averaging import AVERAGING_RULES
from sparknn.core.training.final_weights import FINAL_WEIGHTS
from sparknn.ml.checked_params import AUTO, AutoOr, CheckedParam, CheckedParams, getter, setter
from sparknn.ml.validators import Each, OneOf, Range

_INT, _FLOAT = TypeConverters.toInt, TypeConverters.toFloat
_BOOLEAN, _STRING = TypeConverters.toBoolean, TypeConverters.toString
# "auto" is resolved by `resolve_defaults`, which knows the rows and the workers.
_AUTO_INT, _AUTO_FLOAT = AutoOr(_INT), AutoOr(_FLOAT)
_COUNT = Range(1)


class _Architecture(CheckedParams):
    """What the network looks like. Its first and last size come from the data."""

    hiddenLayers = CheckedParam(
        "hiddenLayers",
        "sizes of the hidden layers, first to last; an empty list trains a linear model",
        TypeConverters.toListInt,
        [100],
        Each(_COUNT),
    )
    activation = CheckedParam(
        "activation",
        "nonlinearity of the hidden layers",
        _STRING,
        "relu",
        OneOf(tuple(ACTIVATIONS)),
    )
    dropout = CheckedParam(
        "dropout",
        "share of the hidden units that each training step leaves out",
        _FLOAT,
        0.0,
        Range(0, 1, open_high=True),
    )

    setHiddenLayers, getHiddenLayers = setter(hiddenLayers), getter(hiddenLayers)
    setActivation, getActivation = setter(activation), getter(activation)
    setDropout, getDropout = setter(dropout), getter(dropout)


class _LocalTraining(
    CheckedParams, HasSeed, HasSolver, HasStepSize, HasMomentum, HasRegParam, HasBatchSize
):
    """What every worker does with its rows."""

    seed = CheckedParam("seed", "decides every random choice of a fit", _INT, 0)
    solver: CheckedParam[Any] = CheckedParam(
        "solver",
        "how a worker turns gradients into steps",
        _STRING,
        AUTO,
        OneOf((AUTO, *SOLVERS)),
    )
    stepSize: CheckedParam[Any] = CheckedParam(
        "stepSize",
        "peak of the step size; 'auto' chooses it for the solver",
        _AUTO_FLOAT,
        AUTO,
        Range(0, open_low=True),
    )
    stepSizeSchedule = CheckedParam(
        "stepSizeSchedule",
        "step size over a fit: level, or rising over the first tenth and then falling to 0, in a "
        "straight line or half a cosine",
        _STRING,
        "linear",
        OneOf(tuple(SCHEDULES)),
    )
    momentum = CheckedParam(
        "momentum",
        "of the solvers momentum and ngsgd; in adam and adamw, the decay of the first moment",
        _FLOAT,
        0.9,
        Range(0, 1, open_high=True),
    )
    regParam: CheckedParam[Any] = CheckedParam(
        "regParam",
        "L2 penalty on weights, not on biases; 'auto': 1 / rows (or the sum of their weights, if "
        "more), 0.01 at most; 0 from 10,000 on, and where initialModel is set",
        _AUTO_FLOAT,
        AUTO,
        Range(0),
    )
    batchSize: CheckedParam[Any] = CheckedParam(
        "batchSize",
        "rows in a mini-batch; 'auto' chooses it for the number of rows",
        _AUTO_INT,
        AUTO,
        _COUNT,
    )
    localEpochs: CheckedParam[Any] = CheckedParam(
        "localEpochs",
        "passes over a worker's rows in each round; 'auto': 1, more where a worker has few rows",
        _AUTO_INT,
        AUTO,
        _COUNT,
    )
    miniBatchFraction = CheckedParam(
        "miniBatchFraction",
        "share of a worker's rows that a round draws",
        _FLOAT,
        1.0,
        Range(0, 1, open_low=True),
    )
    period = CheckedParam(
        "period",
        "'fixed': every round does localEpochs passes over miniBatchFraction of the rows; 'auto': "
        "it does several times that while it is short against what a round costs, and as the step "
        "size falls. The fit then depends on measured times, and is not the same to the byte",
        _STRING,
        "fixed",
        OneOf(("fixed", "auto")),
    )
    shuffle = CheckedParam(
        "shuffle",
        "whether rows are dealt to the workers at random, and put in a new order for every pass",
        _BOOLEAN,
        True,
    )
    maxChange = CheckedParam(
        "maxChange",
        "largest norm of what a mini-batch adds in sgd, and to the velocity in momentum and ngsgd; "
        "0 for no limit",
        _FLOAT,
        2.0,
        Range(0),
    )

    setSeed, setSolver, setStepSize = setter(seed), setter(solver), setter(stepSize)
    setMomentum, setRegParam, setBatchSize = setter(momentum), setter(regParam), setter(batchSize)
    setStepSizeSchedule, getStepSizeSchedule = setter(stepSizeSchedule), getter(stepSizeSchedule)
    setLocalEpochs, getLocalEpochs = setter(localEpochs), getter(localEpochs)
    setMiniBatchFraction, getMiniBatchFraction = (
        setter(miniBatchFraction),
        getter(miniBatchFraction),
    )
    setPeriod, getPeriod = setter(period), getter(period)
    setShuffle, getShuffle = setter(shuffle), getter(shuffle)
    setMaxChange, getMaxChange = setter(maxChange), getter(maxChange)


class _ModelOrPath:
    """A converter that takes a model, which stays the object it is, or a path, as a string."""

    kind = "a fitted model, or the path of a saved one"

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Model):
            return value
        return _STRING(os.fspath(value) if isinstance(value, os.PathLike) else value)


class _Averaging(CheckedParams, HasMaxIter, HasTol, HasAggregationDepth):
    """How many workers there are, how their networks become one, and when the rounds end."""

    maxIter = CheckedParam("maxIter", "number of rounds", _INT, 20, _COUNT)
    numWorkers = CheckedParam(
        "numWorkers",
        "networks that are trained side by side and averaged; 0 for Spark's default parallelism, "
        "which grows as executors register: set it where a fit shall be the same again",
        _INT,
        0,
        Range(0),
    )
    averaging: CheckedParam[Any] = CheckedParam(
        "averaging",
        "how the driver moves from the workers' mean to the next network; 'auto' chooses rule, "
        "averagingMomentum and averagingRate by the number of workers",
        _STRING,
        AUTO,
        OneOf((AUTO, *AVERAGING_RULES)),
    )
    averagingMomentum: CheckedParam[Any] = CheckedParam(
        "averagingMomentum",
        "share of the last rounds' movement that the next round keeps",
        _AUTO_FLOAT,
        AUTO,
        Range(0, 1, open_high=True),
    )
    averagingRate: CheckedParam[Any] = CheckedParam(
        "averagingRate",
        "multiplies the movement of each round",
        _AUTO_FLOAT,
        AUTO,
        Range(0, open_low=True),
    )
    localState: CheckedParam[Any] = CheckedParam(
        "localState",
        "whether the solvers' buffers are averaged like the network, or start each round at 0",
        _STRING,
        AUTO,
        OneOf((AUTO, "average", "reset")),
    )
    finalWeights: CheckedParam[Any] = CheckedParam(
        "finalWeights",
        "the network that a fit ends with: the last round's, the best by validation loss, a moving "
        "average over rounds, or the best mean of the last rounds; 'auto' is best with validation "
        "rows and last without",
        _STRING,
        AUTO,
        OneOf((AUTO, *FINAL_WEIGHTS)),
    )
    patience = CheckedParam(
        "patience",
        "rounds without a better validation loss after which a fit stops; 0 for never",
        _INT,
        0,
        Range(0),
    )
    tol = CheckedParam(
        "tol", "by how much a validation loss must fall to count as better", _FLOAT, 0.0, Range(0)
    )
    aggregationDepth = CheckedParam(
        "aggregationDepth", "depth of the tree that adds up the workers", _INT, 2, _COUNT
    )
    initialModel: CheckedParam[Any] = CheckedParam(
        "initialModel",
        "a model, or the path of a saved one, to continue from: features and classes must be the "
        "same, and hiddenLayers and activation if they are set; '' starts afresh",
        _ModelOrPath(),
        "",
    )

    setMaxIter, setTol, setAggregationDepth = setter(maxIter), setter(tol), setter(aggregationDepth)
    setNumWorkers, getNumWorkers = setter(numWorkers), getter(numWorkers)
    setAveraging, getAveraging = setter(averaging), getter(averaging)
    setAveragingMomentum, getAveragingMomentum = (
        setter(averagingMomentum),
        getter(averagingMomentum),
    )
    setAveragingRate, getAveragingRate = setter(averagingRate), getter(averagingRate)
    setLocalState, getLocalState = setter(localState), getter(localState)
    setFinalWeights, getFinalWeights = setter(finalWeights), getter(finalWeights)
    setPatience, getPatience = setter(patience), getter(patience)
    setInitialModel, getInitialModel = setter(initialModel), getter(initialModel)


class _Rows(
    CheckedParams, HasWeightCol, HasValidationIndicatorCol, HasStandardization, HasHandleInvalid
):
    """Which rows are trained on, and what is done to them first."""

    standardization = CheckedParam(
        "standardization",
        "whether features are brought to mean 0 and a common scale in the fit; the model takes "
        "them as they are",
        _BOOLEAN,
        True,
    )
    handleInvalid = CheckedParam(
        "handleInvalid",
        "what becomes of rows with null, NaN or infinite values in training",
        _STRING,
        "error",
        OneOf(("error", "skip")),
    )
    validationFraction = CheckedParam(
        "validationFraction",
        "share of the rows drawn for validation; not together with validationIndicatorCol",
        _FLOAT,
        0.0,
        Range(0, 1, open_high=True),
    )

    setWeightCol = setter(HasWeightCol.weightCol)
    setValidationIndicatorCol = setter(HasValidationIndicatorCol.validationIndicatorCol)
    setStandardization, setHandleInvalid = setter(standardization), setter(handleInvalid)
    setValidationFraction, getValidationFraction = (
        setter(validationFraction),
        getter(validationFraction),
    )


class _CountOrNone:
    """A count, or -1, which is Spark's word for none."""

    def problem(self, value: Any) -> str | None:
        return None if value == -1 or value >= 1 else f"expected a number {self}"

    def __str__(self) -> str:
        return ">= 1, or -1 for none"


class _Checkpoints(CheckedParams, HasCheckpointInterval):
    """How a fit survives its driver."""

    checkpointDir = CheckedParam(
        "checkpointDir",
        "a folder, on any file system that Spark knows, to write the state of a fit to. Another "
        "fit with the same settings and rows then continues from there. A fit removes what it "
        "wrote when it ends well; '' writes nothing. One driver at a time",
        _STRING,
        "",
    )
    checkpointInterval = CheckedParam(
        "checkpointInterval",
        "rounds between two checkpoints, if there is a checkpointDir: one costs about a second, "
        "and what a driver loses that dies is the rounds since the last",
        _INT,
        5,
        _CountOrNone(),
    )

    setCheckpointDir, getCheckpointDir = setter(checkpointDir), getter(checkpointDir)
    setCheckpointInterval = setter(checkpointInterval)


class NetworkParams(_Architecture, _LocalTraining, _Averaging, _Rows, _Checkpoints):
    """What classifier, regressor and their models have in common."""


def model_handle_invalid() -> CheckedParam[str]:
    """``handleInvalid`` of a model: a row that cannot be predicted can be kept as well."""
    return CheckedParam(
        "handleInvalid",
        "what becomes of rows whose features are null, or hold null, NaN or infinite values: an "
        "error, left out, or kept with null predictions",
        _STRING,
        "error",
        OneOf(("error", "skip", "keep")),
    )


class _Thresholds:
    """One number of at least 0 a class, of which at most one is 0."""

    def problem(self, value: Any) -> str | None:
        usable = all(Range(0).problem(entry) is None for entry in value)
        if usable and len(value) >= 2 and value.count(0) <= 1:
            return None
        return "expected two or more numbers >= 0 of which at most one is 0, one a class"

    def __str__(self) -> str:
        return "two or more, each >= 0, at most one of them 0"


def class_thresholds() -> CheckedParam[Any]:
    """``thresholds`` of the classifier and its model, in place of Spark's, which takes anything."""
    return CheckedParam(
        "thresholds",
        "one number a class: the class with the largest probability / threshold is predicted",
        TypeConverters.toListFloat,
        rule=_Thresholds(),
    )


class ClassifierParams(NetworkParams):
    """Params of the classifier and its model that Spark's classifiers do not have."""

    classWeight = CheckedParam(
        "classWeight",
        "'balanced' gives all classes the same total weight in the loss; the means and scales of "
        "standardization, unlike with weightCol, do not count it",
        _STRING,
        "none",
        OneOf(("none", "balanced")),
    )
    setClassWeight, getClassWeight = setter(classWeight), getter(classWeight)


class HasNumClasses(CheckedParams):
    """``numClasses`` of the classifier alone: its model has a property of that name."""

    numClasses = CheckedParam(
        "numClasses",
        "number of classes, for labels without metadata of which the rows may lack some, such as "
        "those of a fold; 0: as the metadata says, or else the largest label does",
        _INT,
        0,
        Range(0),
    )
    setNumClasses, getNumClasses = setter(numClasses), getter(numClasses)


class RegressorParams(NetworkParams, HasLoss):
    """Params of the regressor and its model."""

    loss = CheckedParam(
        "loss",
        "what the fit makes small; huber is squared up to an error of one standard deviation of "
        "the target, and absolute beyond",
        _STRING,
        "squared",
        OneOf(tuple(name for name, loss in LOSSES.items() if not loss.classifies)),
    )
    setLoss = setter(loss)
