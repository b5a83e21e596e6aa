"""Declare every param of the estimators and their models, each once.

With Spark's name and mixin if there is one; a mixin's param is declared again only for another
default, a range, or a doc that explains it for this estimator.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from pyspark.ml.base import Model
from pyspark.ml.param import Params, TypeConverters
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
from sparknn.core.training.validation import metric_names
from sparknn.ml.checked_params import (
    AUTO,
    AutoOr,
    CheckedParam,
    CheckedParams,
    ParamError,
    getter,
    setter,
)
from sparknn.ml.validators import Each, OneOf, Range

_INT, _FLOAT = TypeConverters.toInt, TypeConverters.toFloat
_BOOLEAN, _STRING = TypeConverters.toBoolean, TypeConverters.toString
# "auto" is resolved by `resolve_defaults`, which knows the rows and the workers.
_AUTO_INT, _AUTO_FLOAT = AutoOr(_INT), AutoOr(_FLOAT)
_COUNT = Range(1)


class _Architecture(CheckedParams):
    """Params of the network. The sizes of its first and last layer come from the data."""

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
        "share of the hidden units that each training step drops",
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
    """Params of the training on each worker."""

    seed = CheckedParam("seed", "seed of every random choice in a fit", _INT, 0)
    solver: CheckedParam[Any] = CheckedParam(
        "solver",
        "rule that turns gradients into steps on a worker",
        _STRING,
        AUTO,
        OneOf((AUTO, *SOLVERS)),
    )
    stepSize: CheckedParam[Any] = CheckedParam(
        "stepSize",
        "largest step size of a fit; 'auto' chooses it for the solver",
        _AUTO_FLOAT,
        AUTO,
        Range(0, open_low=True),
    )
    stepSizeSchedule = CheckedParam(
        "stepSizeSchedule",
        "step size over a fit: constant, or a warm-up over the first tenth and then a linear or "
        "cosine decrease to 0",
        _STRING,
        "linear",
        OneOf(tuple(SCHEDULES)),
    )
    momentum = CheckedParam(
        "momentum",
        "momentum of the solvers momentum and ngsgd; beta1 of adam and adamw",
        _FLOAT,
        0.9,
        Range(0, 1, open_high=True),
    )
    regParam: CheckedParam[Any] = CheckedParam(
        "regParam",
        "L2 penalty on weights, not on biases; 'auto' is 1 / rows (or 1 / the sum of their "
        "weights, if that is larger), at most 0.01, falls to 0 from 10,000 to 20,000 rows, and is "
        "0 with an initialModel. If numbers are encoded by pieces, it starts at 60 / rows "
        "(40 / rows for a regression), at most 0.2, and falls with the training loss",
        _AUTO_FLOAT,
        AUTO,
        Range(0),
    )
    batchSize: CheckedParam[Any] = CheckedParam(
        "batchSize",
        "rows per mini-batch; 'auto' chooses it for the number of rows",
        _AUTO_INT,
        AUTO,
        _COUNT,
    )
    localEpochs: CheckedParam[Any] = CheckedParam(
        "localEpochs",
        "passes over a worker's rows per round; 'auto' is 1, or more if workers have few rows",
        _AUTO_INT,
        AUTO,
        _COUNT,
    )
    miniBatchFraction = CheckedParam(
        "miniBatchFraction",
        "share of a worker's rows that is drawn per round",
        _FLOAT,
        1.0,
        Range(0, 1, open_low=True),
    )
    period = CheckedParam(
        "period",
        "'fixed': every round makes localEpochs passes over miniBatchFraction of the rows; 'auto': "
        "several times that if rounds are short compared to their overhead. The fit then depends "
        "on measured times, and is not reproducible",
        _STRING,
        "fixed",
        OneOf(("fixed", "auto")),
    )
    shuffle = CheckedParam(
        "shuffle",
        "whether rows are distributed to workers at random, and reordered for every pass",
        _BOOLEAN,
        True,
    )
    maxChange = CheckedParam(
        "maxChange",
        "largest norm of a mini-batch's step in sgd, and of its contribution to the velocity in "
        "momentum and ngsgd; 0 for no limit",
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
    """Convert a path to a string, and leave a model as it is."""

    kind = "a fitted model, or the path of a saved one"

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Model):
            return value
        return _STRING(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _validation_metric(names: Sequence[str]) -> CheckedParam[Any]:
    return CheckedParam(
        "validationMetric",
        "what patience, tol and finalWeights go by: the loss of the validation rows, or a metric "
        "as Spark's evaluators define it",
        _STRING,
        "loss",
        OneOf(tuple(names)),
    )


class _Averaging(CheckedParams, HasMaxIter, HasTol, HasAggregationDepth):
    """Params of the workers, the averaging of their networks, and the end of the rounds."""

    maxIter: CheckedParam[Any] = CheckedParam(
        "maxIter",
        "number of rounds; 'auto' is 20, but for a classifier of more than 256 dense features with "
        "more than 10,000 rows per worker: 200,000 / rows per worker and round, at least 6",
        _AUTO_INT,
        AUTO,
        _COUNT,
    )
    numWorkers = CheckedParam(
        "numWorkers",
        "networks that are trained in parallel and averaged; 0 for Spark's default parallelism, "
        "which grows as executors register (set it for reproducible fits), or fewer, two at least, "
        "where a worker would have less than 1,000 rows",
        _INT,
        0,
        Range(0),
    )
    averaging: CheckedParam[Any] = CheckedParam(
        "averaging",
        "rule for the next network, given the mean of the workers' networks; 'auto' chooses it "
        "and averagingMomentum by the number of workers",
        _STRING,
        AUTO,
        OneOf((AUTO, *AVERAGING_RULES)),
    )
    averagingMomentum: CheckedParam[Any] = CheckedParam(
        "averagingMomentum",
        "share of the previous rounds' movement that a round keeps",
        _AUTO_FLOAT,
        AUTO,
        Range(0, 1, open_high=True),
    )
    localState: CheckedParam[Any] = CheckedParam(
        "localState",
        "whether solver buffers are averaged like the network, or start each round at 0",
        _STRING,
        AUTO,
        OneOf((AUTO, "average", "reset")),
    )
    finalWeights: CheckedParam[Any] = CheckedParam(
        "finalWeights",
        "network that a fit returns: of the last round, or the best by validationMetric, which is "
        "the last unless that is worse by more than the standard error; 'auto' is best with "
        "validation rows, otherwise last",
        _STRING,
        AUTO,
        OneOf((AUTO, *FINAL_WEIGHTS)),
    )
    validationMetric = _validation_metric(["loss"])
    patience = CheckedParam(
        "patience",
        "rounds without a better validationMetric after which a fit stops; 0 for never",
        _INT,
        0,
        Range(0),
    )
    tol = CheckedParam("tol", "change that makes a validationMetric better", _FLOAT, 0.0, Range(0))
    aggregationDepth = CheckedParam(
        "aggregationDepth", "depth of the tree that sums the networks", _INT, 2, _COUNT
    )
    initialModel: CheckedParam[Any] = CheckedParam(
        "initialModel",
        "model to continue from, or the path of a saved one: features and classes must be the "
        "same, and hiddenLayers and activation if they are set; '' starts from scratch",
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
    setLocalState, getLocalState = setter(localState), getter(localState)
    setFinalWeights, getFinalWeights = setter(finalWeights), getter(finalWeights)
    setPatience, getPatience = setter(patience), getter(patience)
    setValidationMetric, getValidationMetric = setter(validationMetric), getter(validationMetric)
    setInitialModel, getInitialModel = setter(initialModel), getter(initialModel)


class _DistinctNames:
    """Accept names, each once."""

    def problem(self, value: Any) -> str | None:
        twice = [name for name in value if value.count(name) > 1]
        return f"'{twice[0]}' is named twice" if twice else None

    def __str__(self) -> str:
        return "names, each once; none for featuresCol"


class _NamesOrIndices:
    """Convert a list of names and indices."""

    kind = "a list of feature names or indices"

    def __call__(self, value: Any) -> list[Any]:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise TypeError
        return [each if isinstance(each, str) else _INT(each) for each in value]


class _Rows(
    CheckedParams, HasWeightCol, HasValidationIndicatorCol, HasStandardization, HasHandleInvalid
):
    """Params of the rows: which ones count, and how they are prepared."""

    standardization = CheckedParam(
        "standardization",
        "whether a fit scales features to mean 0 and a common scale; the model takes them unscaled",
        _BOOLEAN,
        True,
    )
    handleInvalid = CheckedParam(
        "handleInvalid",
        "what to do with training rows that have null, NaN or infinite values: raise an error, "
        "skip them, or keep rows whose features have null or NaN, with the median of the training "
        "rows and an input that tells the network that the value is missing. The model inherits "
        "the value, for the rows that it predicts",
        _STRING,
        "error",
        OneOf(("error", "skip", "keep")),
    )
    numericEncoding = CheckedParam(
        "numericEncoding",
        "how numbers reach the network: plain, or piecewise, by their place among the quantiles of "
        "the training rows; 'auto' is piecewise for dense features, at most 256, of 300 rows or "
        "more, if standardization is on",
        _STRING,
        AUTO,
        OneOf((AUTO, "plain", "piecewise")),
    )
    inputCols: CheckedParam[Any] = CheckedParam(
        "inputCols",
        "columns to use instead of featuresCol: numbers, booleans, indexed columns, text, and "
        "vectors of declared size. Text is a category, with the values that training rows have",
        TypeConverters.toListString,
        [],
        _DistinctNames(),
    )
    categorical = CheckedParam(
        "categorical",
        "whether features that their metadata declares nominal, as StringIndexer leaves them in an "
        "assembled vector, are categories instead of numbers",
        _BOOLEAN,
        True,
    )
    categoricalFeatures: CheckedParam[Any] = CheckedParam(
        "categoricalFeatures",
        "features that are categories, of values 0, 1, 2, ..., by name or by index; for vectors "
        "without metadata",
        _NamesOrIndices(),
        [],
    )
    validationFraction = CheckedParam(
        "validationFraction",
        "share of the rows drawn for validation; not allowed with validationIndicatorCol",
        _FLOAT,
        0.0,
        Range(0, 1, open_high=True),
    )

    setWeightCol = setter(HasWeightCol.weightCol)
    setValidationIndicatorCol = setter(HasValidationIndicatorCol.validationIndicatorCol)
    setStandardization, setHandleInvalid = setter(standardization), setter(handleInvalid)
    setInputCols, getInputCols = setter(inputCols), getter(inputCols)
    setNumericEncoding, getNumericEncoding = setter(numericEncoding), getter(numericEncoding)
    setCategorical, getCategorical = setter(categorical), getter(categorical)
    setCategoricalFeatures, getCategoricalFeatures = (
        setter(categoricalFeatures),
        getter(categoricalFeatures),
    )
    setValidationFraction, getValidationFraction = (
        setter(validationFraction),
        getter(validationFraction),
    )


class _CountOrNone:
    """Accept a count, or -1, which Spark uses for none."""

    def problem(self, value: Any) -> str | None:
        return None if value == -1 or value >= 1 else f"expected a number {self}"

    def __str__(self) -> str:
        return ">= 1, or -1 for none"


class _LocalPath:
    """Accept paths from the root that Python's ``open`` understands."""

    def problem(self, value: Any) -> str | None:
        if value == "" or value.startswith("/"):
            return None
        scheme, _, path = value.partition(":/")
        hint = f"; on Databricks, '/dbfs/{path.lstrip('/')}'" if scheme == "dbfs" else ""
        return f"expected a path {self}{hint}"

    def __str__(self) -> str:
        return "such as '/Volumes/...' or '/mnt/...', which executors open as local files"


class _Directories(CheckedParams, HasCheckpointInterval):
    """Params of what a fit stores: shards, and checkpoints to continue from."""

    shardDir = CheckedParam(
        "shardDir",
        "directory that all executors share, for the rows while a fit runs; '' for the executors' "
        "own disks. For sessions that do not keep data on executors, and executors that come and "
        "go. A fit removes its folder there; a driver that dies leaves it, named sparknn-*",
        _STRING,
        "",
        _LocalPath(),
    )

    checkpointDir = CheckedParam(
        "checkpointDir",
        "directory, on any file system of Spark's, for the state of a fit; '' for none. Another "
        "fit with the same settings and rows continues from it. A fit that succeeds removes it. "
        "For one driver at a time",
        _STRING,
        "",
    )
    checkpointInterval = CheckedParam(
        "checkpointInterval",
        "rounds between two checkpoints; each takes about a second, and a driver failure loses at "
        "most this many rounds",
        _INT,
        5,
        _CountOrNone(),
    )

    setCheckpointDir, getCheckpointDir = setter(checkpointDir), getter(checkpointDir)
    setCheckpointInterval = setter(checkpointInterval)
    setShardDir, getShardDir = setter(shardDir), getter(shardDir)


class _Explanations(CheckedParams):
    """Params of what a model explains."""

    contributionsCol: CheckedParam[Any] = CheckedParam(
        "contributionsCol",
        "column of what every feature contributes to every raw prediction (logit), or target: an "
        "array per class or target of a number per feature; by default none. Integrated gradients "
        "from the mean of the training rows: a row's add up to its output less that of the mean",
        _STRING,
    )
    setContributionsCol, getContributionsCol = setter(contributionsCol), getter(contributionsCol)

    verbose = CheckedParam(
        "verbose",
        "whether a notebook or a terminal shows the rounds of a fit in a live line",
        _BOOLEAN,
        True,
    )
    setVerbose, getVerbose = setter(verbose), getter(verbose)


class NetworkParams(_Architecture, _LocalTraining, _Averaging, _Rows, _Directories, _Explanations):
    """Params that classifier, regressor and their models share."""

    _removed: ClassVar = {"averagingRate": "set a smaller or larger averagingMomentum."}


def model_handle_invalid() -> CheckedParam[str]:
    """Return ``handleInvalid`` for a model, which can also keep rows that are invalid."""
    return CheckedParam(
        "handleInvalid",
        "what to do with rows whose features are null, or have null, NaN or infinite values: raise "
        "an error, skip them, or keep them with null predictions",
        _STRING,
        "error",
        OneOf(("error", "skip", "keep")),
    )


class _Thresholds:
    """Accept one number >= 0 per class, at most one of them 0."""

    def problem(self, value: Any) -> str | None:
        usable = all(Range(0).problem(entry) is None for entry in value)
        if usable and len(value) >= 2 and value.count(0) <= 1:
            return None
        return "expected one number per class, two or more, each >= 0, at most one of them 0"

    def __str__(self) -> str:
        return "two or more, each >= 0, at most one of them 0"


def class_thresholds() -> CheckedParam[Any]:
    """Return ``thresholds`` for the classifier and its model; Spark's own has no rule."""
    return CheckedParam(
        "thresholds",
        "one number per class: the class with the largest probability / threshold is predicted",
        TypeConverters.toListFloat,
        rule=_Thresholds(),
    )


def thresholds_for(stage: Params, n_classes: int) -> tuple[float, ...] | None:
    """Return the thresholds of a stage, or None if there are none.

    Raises
    ------
    ParamError
        If there is not one per class.
    """
    if not stage.isDefined("thresholds"):
        return None
    thresholds = tuple(stage.getOrDefault("thresholds"))
    if len(thresholds) != n_classes:
        problem = f" has {len(thresholds)} numbers; expected {n_classes}, one per class."
        raise ParamError(type(stage).__name__, {"thresholds": problem})
    return thresholds


class ClassifierParams(NetworkParams):
    """Params that the classifier and its model share, besides those of Spark's classifiers."""

    classWeight = CheckedParam(
        "classWeight",
        "'balanced' gives all classes the same total weight in the loss; unlike weightCol, it does "
        "not change the means and scales of standardization",
        _STRING,
        "none",
        OneOf(("none", "balanced")),
    )
    validationMetric = _validation_metric(metric_names(classifies=True))
    setClassWeight, getClassWeight = setter(classWeight), getter(classWeight)


class HasNumClasses(CheckedParams):
    """``numClasses`` of the classifier; its model has a property of that name."""

    numClasses = CheckedParam(
        "numClasses",
        "number of classes; 0 takes it from the label's metadata, or else from the largest label. "
        "Set it for labels without metadata if the rows, such as those of a fold, may lack classes",
        _INT,
        0,
        Range(0),
    )
    setNumClasses, getNumClasses = setter(numClasses), getter(numClasses)


class _Quantiles:
    """Accept numbers between 0 and 1, ascending."""

    def problem(self, value: Any) -> str | None:
        inside = all(0 < each < 1 for each in value)
        if value and inside and sorted(set(value)) == list(value):
            return None
        return f"expected numbers {self}"

    def __str__(self) -> str:
        return "in (0, 1), one or more, ascending"


class RegressorParams(NetworkParams, HasLoss):
    """Params that the regressor and its model share."""

    loss = CheckedParam(
        "loss",
        "what a fit minimizes; huber is squared for errors up to one standard deviation of the "
        "target, and absolute beyond; poisson is for counts, whose mean is the exponential of "
        "the network's output; quantile predicts quantiles",
        _STRING,
        "squared",
        OneOf((*(name for name, loss in LOSSES.items() if not loss.classifies), "quantile")),
    )
    quantiles: CheckedParam[Any] = CheckedParam(
        "quantiles",
        "what loss='quantile' predicts of one target; several quantiles are a vector, in order",
        TypeConverters.toListFloat,
        [0.5],
        _Quantiles(),
    )
    validationMetric = _validation_metric(metric_names(classifies=False))
    setLoss = setter(loss)
    setQuantiles, getQuantiles = setter(quantiles), getter(quantiles)
