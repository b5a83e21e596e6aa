"""Train on an engine: from a DataFrame to models, for estimators that share their rows.

load initial models -> ingest -> resolve defaults -> resume -> run rounds -> make models
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pyspark.ml.base import Model
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField

from sparknn.core.columns import InputColumns
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run_all
from sparknn.core.types import Float32Array
from sparknn.engine import open_engine
from sparknn.engine.interface import DataError, DatasetInfo, DataSpec, Engine
from sparknn.engine.interrupts import defer_interrupts
from sparknn.ml.attributes import feature_attributes
from sparknn.ml.callbacks import HasCallbacks
from sparknn.ml.checkpoint import Checkpoints
from sparknn.ml.explain import explain, rows_to_explain
from sparknn.ml.invalid_values import named_columns
from sparknn.ml.live_line import LiveLine
from sparknn.ml.model import NetworkModel
from sparknn.ml.params import NetworkParams
from sparknn.ml.progress import Progress
from sparknn.ml.resume import probe_all, reserve_dirs, resume_all
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.training_setup import Target, fitted_network, in_target_units, make_fit

log = logging.getLogger("sparknn")


class Trainable(NetworkParams, HasCallbacks):
    """Base class for what a fit needs from an estimator besides its Params."""

    _model_class: ClassVar[type[NetworkModel]]

    @abstractmethod
    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        """Return what to predict, given the ingested rows and the initial network."""


@dataclass
class _Run:
    """One estimator on its way to a model; ``error`` is why there will be none."""

    estimator: Trainable
    map_index: int
    initial: LocalPredictor | None = None
    state: FitState | None = None
    sample: Float32Array | None = None
    error: Exception | None = None


def fit_models(
    dataset: DataFrame,
    spec: DataSpec,
    estimators: Sequence[Trainable],
    map_indices: Sequence[int] = (0,),
    n_maps: int = 1,
    inputs: InputColumns | None = None,
) -> list[Any]:
    """Return for each estimator its model, or the error that occurred instead.

    Parameters
    ----------
    dataset : DataFrame
    spec : DataSpec
        Common to all estimators.
    estimators : sequence of Trainable
    map_indices : sequence of int
        Which parameter map each of them is, of ``n_maps``.
    n_maps : int
    inputs : InputColumns, optional
        What the features of ``dataset`` were assembled from.
    """
    started = time.perf_counter()
    spark, label = dataset.sparkSession, dataset.schema[spec.label]
    runs = [_Run(*each) for each in zip(estimators, map_indices, strict=True)]
    _load_initial_models(spark, runs)
    if all(run.error is not None for run in runs):
        return [run.error for run in runs]
    probe_all(spark, estimators)
    verbose = any(estimator.getVerbose() for estimator in estimators)
    with reserve_dirs() as reserve, LiveLine(verbose) as live:
        depth = estimators[0].getAggregationDepth()
        known = feature_attributes(dataset.schema[spec.features])
        with named_columns(dataset, spec, inputs), open_engine(dataset, spec, depth) as engine:
            if known.size not in (None, engine.info.n_features):
                raise DataError(
                    f"Column '{spec.features}' declares {known.size} features in its metadata, but "
                    f"its rows have {engine.info.n_features}. Assemble it again."
                )
            for run in runs:
                progress = Progress(run.estimator, run.map_index, n_maps, live)
                _prepare(run, engine, label, known.names, progress)
            ready = [(run.estimator, run.state) for run in runs if run.state is not None]
            resume_all(spark, engine, spec, ready, reserve)
            live.begin([state for _, state in ready])
            run_all(engine, [state for _, state in ready])
            info, ingest_s = engine.info, engine.ingest_s
        if info.n_skipped:
            log.info(
                "The model drops such rows, too: it has handleInvalid='skip' from the estimator. "
                "Set the model's handleInvalid to 'error' or 'keep' otherwise."
            )
        seconds = time.perf_counter() - started
        named = known.name_list
        return [_outcome(run, info, named, inputs, seconds, ingest_s) for run in runs]


def load_initial_model(estimator: Trainable, spark: SparkSession) -> Any:
    """Return the model that a fit continues from, or None."""
    model = estimator.getInitialModel()
    if isinstance(model, str) and model:
        return type(estimator)._model_class.read().session(spark).load(model)
    return model or None


@defer_interrupts()
def _load_initial_models(spark: SparkSession, runs: Sequence[_Run]) -> None:
    """Load the initial model of each run; a path that several runs share is loaded once."""
    loaded: dict[Any, Any] = {}
    for run in runs:
        model = run.estimator.getInitialModel()
        if not model:
            continue
        if model not in loaded:
            try:
                loaded[model] = load_initial_model(run.estimator, spark)
            except Exception as error:
                # Every file system has its own errors; the fits that need the model raise it.
                loaded[model] = error
        found = loaded[model]
        if isinstance(found, Exception):
            run.error = found
        else:
            run.initial = found._predictor


def _prepare(
    run: _Run, engine: Engine, label: StructField, names: dict[int, str], progress: Progress
) -> None:
    """Resolve defaults and targets, now that the rows are known."""
    if run.error is not None:
        return
    estimator = run.estimator
    try:
        target = estimator._target(engine, label, run.initial.network if run.initial else None)
        run.state = make_fit(
            estimator,
            engine,
            target,
            run.initial,
            progress,
            names,
        )
        run.sample = rows_to_explain(engine, run.state)
    except ValueError as error:
        run.error = error


def _outcome(
    run: _Run,
    info: DatasetInfo,
    names: list[str] | None,
    inputs: InputColumns | None,
    seconds: float,
    ingest_s: float,
) -> Any:
    """Return the model of a run that has ended, or its error."""
    state, estimator = run.state, run.estimator
    if state is None or state.error is not None:
        return run.error if state is None else state.error
    try:
        local = fitted_network(state, info.input_offset)
    except DataError as error:
        return error
    if isinstance(state.on_checkpoint, Checkpoints):
        state.on_checkpoint.clear()
    summary = TrainingSummary(
        records=[in_target_units(record, state) for record in state.history],
        n_rows=info.n_rows,
        n_validation=info.n_validation,
        n_features=info.n_features,
        n_workers=len(info.rows_per_worker),
        seconds=seconds,
        ingest_s=ingest_s,
    )
    network = local.network
    model: Any = estimator._model_class(
        network,
        local.theta,
        summary,
        state.config.encoding,
        names,
        inputs=inputs,
        input_offset=local.input_offset,
        output_offset=local.output_offset,
        explanation=explain(state, local, run.sample, info.input_offset),
    )
    model._resetUid(estimator.uid)
    estimator._copyValues(model)
    if isinstance(model.getInitialModel(), Model):
        # Or a chain of warm starts would keep every earlier model alive.
        model.clear(model.initialModel)
    if estimator.getInitialModel():
        # Params that were not set came from the initial model.
        model._set(hiddenLayers=list(network.layers[1:-1]), activation=network.activation)
    return model
