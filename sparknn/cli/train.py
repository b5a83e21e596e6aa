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

from sparknn.cli.errors import UsageError, raise_mistakes
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
from sparknn.ml.schema import SchemaError, case_matters

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
    return [
        *(source.problem(spark, key) for key, source in read),
        *(target.problem(spark, key) for key, target in written),
        *overlaps(spark, read, written),
    ]


def _train(job: TrainJob, spark: SparkSession) -> None:
    initial = _start_from(job, spark)
    # Before the schema is known already: Spark reads all of a CSV to find its columns' types.
    log.info("Reading %s ...", job.train.path)
    rows = job.train.read(spark)
    columns = plan_columns(rows.schema, job.features, job.label, classifies=job.classifies)
    if initial is not None:
        columns = _numbered_as(initial, columns, job)
    raise_mistakes(job.name, _column_mistakes(job, columns, rows, spark))
    saved = SavedModel.of(model := _fit(job, columns, rows))
    assert saved is not None
    log.info("%s", _trained(saved.network))
    if job.model is not None:
        writer = model.write()
        (writer.overwrite() if job.model.overwrite else writer).save(job.model.path)
        log.info("Saved the model to %s.", job.model.path)
    if job.test is not None:
        _test(job, saved, spark)
    if job.curve is not None:
        log.info("%s", _draw(saved.network.summary, job.curve))


def _column_mistakes(
    job: TrainJob, columns: Columns, rows: DataFrame, spark: SparkSession
) -> list[str]:
    """Return what is wrong with the columns of the training rows, then of the test rows."""
    case = case_matters(spark)
    mistakes = column_mistakes(rows.schema, columns, job.estimator, case_matters=case)
    if mistakes and job.train.format == "csv" and not rows.head(1):
        return [f"data.train: there are no rows in {job.train.path}."]
    if mistakes or job.test is None:
        return mistakes
    test = job.test.read(spark)
    mistakes = column_mistakes(test.schema, columns, job.estimator, "data.test", case_matters=case)
    if mistakes and job.test.format == "csv" and not test.head(1):
        return [f"data.test: there are no rows in {job.test.path}."]
    return mistakes


def _start_from(job: TrainJob, spark: SparkSession) -> SavedModel | None:
    """Give the estimator the network of a saved model or pipeline, if the job names one."""
    path = job.estimator.getInitialModel()
    if not path:
        return None
    saved = load(spark, path, "training.initialModel")
    try:
        job.estimator._set(initialModel=saved.network)
    except ParamError as error:
        raise UsageError(job.name, mistakes_in(error)) from None
    return saved


def _numbered_as(initial: SavedModel, columns: Columns, job: TrainJob) -> Columns:
    """Give the texts of the label the numbers that they had, and check the order of features.

    Otherwise the network would take one class, or one feature, for another.
    """
    for stage in initial.stages:
        if isinstance(stage, VectorAssembler) and columns.assembled:
            names = tuple(stage.getInputCols())
            if stage.getOutputCol() == initial.network.getFeaturesCol() and (
                columns.assembled != names
            ):
                raise UsageError(
                    job.name,
                    [
                        f"data.features: {', '.join(columns.assembled)}; training.initialModel was "
                        f"trained on {', '.join(names)}, in this order."
                    ],
                )
    if columns.indexed and not initial.class_names:
        log.warning(
            "training.initialModel does not know the names of its classes: the texts of column "
            "'%s' are numbered in alphabetical order.",
            columns.indexed,
        )
    return replace(columns, names=tuple(initial.class_names) if columns.indexed else ())


def _fit(job: TrainJob, columns: Columns, rows: DataFrame) -> Any:
    """Fit; name Params by their keys, and the data's own columns."""
    try:
        return fit(job.estimator, columns, rows)
    except ParamError as error:
        raise UsageError(job.name, mistakes_in(error)) from error
    except SchemaError:
        raise
    except Exception as error:
        if text := _row_problem(error, job, columns, rows):
            raise ValueError(text) from error
        raise


def _row_problem(error: Exception, job: TrainJob, columns: Columns, rows: DataFrame) -> str:
    """Return what is wrong with the rows, in columns of the data; empty if the error says it."""
    reason = error.reason if isinstance(error, DataError) else ""
    if reason == "empty":
        return f"data.train: there are no rows in {job.train.path}."
    if reason == "one class" and columns.indexed:
        text = rows.select(quote_column(columns.indexed)).dropna().head()
        return (
            f"data.label: column '{columns.indexed}' holds one class only ({text and text[0]!r}); "
            f"at least two are needed. Check for a filter that removed the others."
        )
    found: list[str] = []
    if job.estimator.getHandleInvalid() == "error":
        found = count_invalid(rows, job.columns, columns.indexed, columns.names)
    if not found:
        return ""
    problems = error.problems if isinstance(error, DataError) else ()
    found += [str(problem) for problem in problems if problem.reason != "missing"]
    return f"data.train: {'; '.join(found)}. {_SKIP}"


def _trained(network: Any) -> str:
    layers, summary = "-".join(map(str, network.layers)), network.summary
    return (
        f"Trained {layers} on {counted(summary.n_rows, 'row')} with "
        f"{counted(summary.n_workers, 'worker')}: {counted(summary.totalIterations, 'round')} in "
        f"{summary.seconds:.1f} s (ingest {summary.ingest_s:.1f} s)."
    )


def _test(job: TrainJob, saved: SavedModel, spark: SparkSession) -> None:
    assert job.test is not None
    log.info("Testing on %s ...", job.test.path)
    rows = job.test.with_features(saved.network.numFeatures).read(spark)
    predicted = print_report(saved, rows, "data.test", _SKIP)
    if job.predictions is not None:
        job.predictions.write(predicted)
        log.info("Wrote the predictions to %s.", job.predictions.path)


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
