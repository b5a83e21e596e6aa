"""``sparknn train``: a job file in, a model, its curve and its test results out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.ml.feature import VectorAssembler
from pyspark.sql import DataFrame, SparkSession

from sparknn.cli.errors import raise_mistakes
from sparknn.cli.evaluate import print_report
from sparknn.cli.invalid_values import count_invalid
from sparknn.cli.io import overlaps
from sparknn.cli.jobfile import TrainJob, load_train, mistakes_in
from sparknn.cli.pipeline import Columns, column_mistakes, fit, plan_columns
from sparknn.cli.report import counted
from sparknn.cli.saved_model import SavedModel, load
from sparknn.cli.session import master, open_session
from sparknn.engine.interface import DataError
from sparknn.engine.sql import quote_column
from sparknn.ml.checked_params import ParamError
from sparknn.ml.schema import case_matters

log = logging.getLogger("sparknn.cli")

_SKIP = "data.handleInvalid = 'skip' leaves such rows out."


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what a job file says.

    Raises
    ------
    UsageError
        Naming every mistake in it before Spark starts; paths and columns that cannot be used
        before the training.
    """
    started = time.perf_counter()
    job = load_train(path, overrides)
    if job.model is None:
        log.warning("There is no output.model: the network is tested, but not saved.")
    log.info("Starting Spark ...")
    with open_session(f"sparknn train {path}", verbose=verbose) as spark:
        seconds = time.perf_counter() - started
        log.info("Spark %s on %s, started in %.1f s.", spark.version, master(spark), seconds)
        raise_mistakes(job.name, _path_mistakes(job, spark))
        _train(job, spark)
    log.info("All done in %.1f s.", time.perf_counter() - started)


def _path_mistakes(job: TrainJob, spark: SparkSession) -> list[str]:
    """Return inputs that are not there and outputs that cannot be written, by their keys."""
    sources = [("data.train", job.train), ("data.test", job.test)]
    targets = [("output.model", job.model), ("output.predictions", job.predictions)]
    read = [(key, source) for key, source in sources if source is not None]
    written = [(key, target) for key, target in targets if target is not None]
    mistakes = [source.problem(spark, key) for key, source in read]
    mistakes += [target.problem(spark, key) for key, target in written]
    return mistakes + list(overlaps(spark, read, written))


def _train(job: TrainJob, spark: SparkSession) -> None:
    path = job.estimator.getInitialModel()
    initial = load(spark, path, "training.initialModel") if path else None
    # Before the schema is known already: Spark reads all of a CSV to find its columns' types.
    log.info("Reading %s ...", job.train.path)
    rows = job.train.read(spark)
    columns = plan_columns(rows.schema, job.features, job.label, classifies=job.classifies)
    if initial is not None:
        columns = _start_from(initial, columns, job)
    raise_mistakes(job.name, _column_mistakes(job, columns, spark))
    model = _fit(job, columns, rows)
    saved = SavedModel.of(model)
    assert saved is not None
    summary = saved.network.summary
    log.info(
        "Trained %s on %s with %s: %s in %.1f s (ingest %.1f s).",
        "-".join(map(str, saved.network.layers)),
        counted(summary.n_rows, "row"),
        counted(summary.n_workers, "worker"),
        counted(summary.totalIterations, "round"),
        *(summary.seconds, summary.ingest_s),
    )
    if job.model is not None:
        writer = model.write()
        (writer.overwrite() if job.model.overwrite else writer).save(job.model.path)
        log.info("Saved the model to %s.", job.model.path)
    if job.test is not None:
        log.info("Testing on %s ...", job.test.path)
        test = job.test.with_features(saved.network.numFeatures).read(spark)
        predicted = print_report(saved, test, "data.test", _SKIP)
        if job.predictions is not None:
            job.predictions.write(predicted)
            log.info("Wrote the predictions to %s.", job.predictions.path)
    if job.curve is not None:
        log.info("%s", _draw(summary, job.curve))


def _start_from(initial: SavedModel, columns: Columns, job: TrainJob) -> Columns:
    """Give the estimator the network of a saved model, and its labels the numbers they had.

    Otherwise the network would take one class, or one feature, for another.
    """
    try:
        job.estimator._set(initialModel=initial.network)
    except ParamError as error:
        raise_mistakes(job.name, mistakes_in(error))
    names, features = ", ".join(columns.assembled), initial.network.getFeaturesCol()
    for stage in initial.stages:
        if isinstance(stage, VectorAssembler) and stage.getOutputCol() == features and names:
            known = ", ".join(stage.getInputCols())
            text = f"{names}; training.initialModel was trained on {known}, in this order."
            raise_mistakes(job.name, [f"data.features: {text}"] if names != known else [])
    if not columns.indexed:
        return columns
    if not initial.class_names:
        log.warning(
            "training.initialModel does not know the names of its classes: the texts of column "
            "'%s' are numbered in alphabetical order.",
            columns.indexed,
        )
    return replace(columns, names=tuple(initial.class_names))


def _column_mistakes(job: TrainJob, columns: Columns, spark: SparkSession) -> list[str]:
    """Return what is wrong with the columns of the training rows, or of the test rows."""
    for key, source in (("data.train", job.train), ("data.test", job.test)):
        if source is None:
            continue
        rows, named_by = source.read(spark), "" if source is job.train else key
        case = case_matters(spark)
        found = column_mistakes(rows.schema, columns, job.estimator, named_by, case_matters=case)
        if found:
            # All columns of a CSV without rows are text.
            is_empty = source.format == "csv" and not rows.head(1)
            return [f"{key}: there are no rows in {source.path}."] if is_empty else found
    return []


def _fit(job: TrainJob, columns: Columns, rows: DataFrame) -> Any:
    """Fit; an error names Params by their keys, and the data's own columns."""
    try:
        return fit(job.estimator, columns, rows)
    except ParamError as error:
        raise_mistakes(job.name, mistakes_in(error))
    except Exception as error:
        if text := _row_problem(error, job, columns, rows):
            raise ValueError(text) from error
        raise


def _row_problem(error: Exception, job: TrainJob, columns: Columns, rows: DataFrame) -> str:
    """Return what is wrong with the rows, in columns of the data; empty if the error says it."""
    reason, problems = getattr(error, "reason", ""), getattr(error, "problems", ())
    if isinstance(error, DataError) and reason == "empty":
        return f"data.train: there are no rows in {job.train.path}."
    if isinstance(error, DataError) and reason == "one class" and columns.indexed:
        text = rows.select(quote_column(columns.indexed)).dropna().head()
        return (
            f"data.label: column '{columns.indexed}' holds one class only ({text and text[0]!r}); "
            f"at least two are needed. Check for a filter that removed the others."
        )
    if job.estimator.getHandleInvalid() != "error":
        return ""
    found = count_invalid(rows, job.columns, columns.indexed, columns.names)
    others = [str(each) for each in problems if getattr(each, "reason", "missing") != "missing"]
    return f"data.train: {'; '.join(found + others)}. {_SKIP}" if found else ""


def _draw(summary: Any, path: str) -> str:
    """Draw the training curve; return a line that says so, or why there is none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"No curve in {path}: matplotlib is not installed (pip install 'sparknn[plot]')."
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # A figure of its own needs no display and leaves pyplot's state alone.
    figure = Figure(figsize=(7, 4), layout="constrained")
    summary.plot(figure.subplots())
    figure.savefig(path, dpi=120)
    return f"Drew the training curve to {path}."
