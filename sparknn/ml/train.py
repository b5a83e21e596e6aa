"""From rows to models: estimators that share their rows are trained in the same rounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.ml.base import Model
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField

from sparknn.core.network import Network
from sparknn.core.types import Float32Array
from sparknn.engine import open_engine
from sparknn.engine.base import DataError, Engine, Facts, Intake
from sparknn.engine.interrupts import interrupts_wait
from sparknn.ml.fitting import fitted_theta, in_label_units, make_fit
from sparknn.ml.progress import Progress
from sparknn.ml.resume import claims, probe_all, resume_all
from sparknn.ml.standardize import warn_of_coarse_features
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.together import LoneFit, run_all

if TYPE_CHECKING:
    from sparknn.ml.estimator import NetworkEstimator

#: A network to continue from, with its parameters; None to start afresh; why it cannot be had.
Start = tuple[Network, Float32Array] | None | Exception


def train_all(
    dataset: DataFrame,
    intake: Intake,
    estimators: Sequence[NetworkEstimator],
    names: Sequence[str],
) -> list[Any]:
    """Models of estimators that share an intake, or the error that there is instead of a model."""
    started = time.perf_counter()
    label = dataset.schema[intake.label]
    starts = _starts(dataset.sparkSession, estimators)
    if all(isinstance(start, Exception) for start in starts):
        return starts
    probe_all(dataset.sparkSession, estimators)
    with claims() as claim:
        with open_engine(dataset, intake, estimators[0].getAggregationDepth()) as engine:
            fits = [
                _prepare(estimator, engine, label, name, start)
                for estimator, name, start in zip(estimators, names, starts, strict=True)
            ]
            both = zip(estimators, fits, strict=True)
            ready = [(estimator, fit) for estimator, fit in both if isinstance(fit, LoneFit)]
            if any(fit.plan.standardizer is not None for _, fit in ready):
                warn_of_coarse_features(intake.features, engine.moments())
            resume_all(dataset.sparkSession, engine, ready, claim)
            run_all(engine, [fit for _, fit in ready])
            facts, ingest_s = engine.facts, engine.ingest_s
        seconds = time.perf_counter() - started
        return [
            _finish(estimator, fit, facts, seconds, ingest_s) if isinstance(fit, LoneFit) else fit
            for estimator, fit in zip(estimators, fits, strict=True)
        ]


@interrupts_wait()
def _starts(spark: SparkSession, estimators: Sequence[NetworkEstimator]) -> list[Start]:
    """What each continues from, or why it cannot; a model that several name is read once."""
    found: dict[Any, Start] = {}
    starts: list[Start] = []
    for estimator in estimators:
        model = estimator.getInitialModel()
        try:
            if model not in found:
                found[model] = estimator._start(spark)
            starts.append(found[model])
        except Exception as error:
            # Every file system has errors of its own; the fit that asked for the model raises it.
            starts.append(error)
    return starts


def _prepare(
    estimator: NetworkEstimator, engine: Engine, label: StructField, name: str, start: Start
) -> LoneFit | Exception:
    if isinstance(start, Exception):
        return start
    try:
        old = None if start is None else start[0]
        target = estimator._target(engine, label, old)
        progress = Progress(estimator.uid, name)
        return make_fit(estimator, engine.facts, engine.moments, target, start, progress)
    except ValueError as error:
        return error


def _finish(
    estimator: NetworkEstimator, fit: LoneFit, facts: Facts, seconds: float, ingest_s: float
) -> Any:
    if fit.error is not None:
        return fit.error
    summary = TrainingSummary(
        records=[in_label_units(record, fit.plan) for record in fit.history],
        n_rows=facts.n_rows,
        n_validation=facts.n_validation,
        n_features=facts.n_features,
        n_workers=len(facts.rows_per_worker),
        seconds=seconds,
        ingest_s=ingest_s,
    )
    try:
        theta = fitted_theta(fit)
    except DataError as error:
        return error
    if fit.checkpoints is not None:
        fit.checkpoints.clear()
    model: Any = estimator._model_class(fit.plan.network, theta, summary)
    model._resetUid(estimator.uid)
    estimator._copyValues(model)
    if isinstance(model.getInitialModel(), Model):
        # Else models that were continued again and again would keep all before them alive.
        model.clear(model.initialModel)
    if estimator.getInitialModel():
        # What was not set was the initial model's.
        layers, activation = model.network.layers, model.network.activation
        model._set(hiddenLayers=list(layers[1:-1]), activation=activation)
    return model
