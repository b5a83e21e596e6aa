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

from sparknn.cli.apply import print_report
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.io import overlaps
from sparknn.cli.jobfile import JobFile, load_train, mistakes_in
from sparknn.cli.pipeline import Columns, column_mistakes, fit, plan_columns
from sparknn.cli.report import counted
from sparknn.cli.saved_model import SavedModel, count_invalid, load
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
    if "output.model" not in job.targets():
        log.warning("There is no output.model: the network is tested, but not saved.")
    log.info("Starting Spark ...")
    with open_session(f"sparknn train {path}", verbose=verbose) as spark:
        seconds = time.perf_counter() - started
        log.info("Spark %s on %s, started in %.1f s.", spark.version, master(spark), seconds)
        read, written = job.sources(), job.targets()
        mistakes = [source.problem(spark, key) for key, source in read.items()]
        mistakes += [target.problem(spark, key) for key, target in written.items()]
        mistakes += overlaps(spark, read.items(), written.items())
        raise_mistakes(job.name, mistakes)
        _train(job, spark)
    log.info("All done in %.1f s.", time.perf_counter() - started)


def _train(job: JobFile, spark: SparkSession) -> None:
    sources, targets = job.sources(), job.targets()
    path = job.estimator.getInitialModel()
    initial = load(spark, path, "training.initialModel") if path else None
    # Before the schema is known already: Spark reads all of a CSV to find its columns' types.
    log.info("Reading %s ...", sources["data.train"].path)
    rows = sources["data.train"].read(spark)
    classifies = job.values["task"] == "classification"
    columns = plan_columns(rows.schema, job.features, job.values["data.label"], classifies)
    if initial is not None:
        columns = _start_from(initial, columns, job)
    for key, source in sources.items():
        read = rows if key == "data.train" else source.read(spark)
        named_by = "" if read is rows else key
        found = column_mistakes(
            read.schema, columns, job.estimator, named_by, case_matters=case_matters(spark)
        )
        # All columns of a CSV without rows are text.
        if found and source.format == "csv" and not read.head(1):
            found = [f"{key}: there are no rows in {source.path}."]
        raise_mistakes(job.name, found)
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
    if target := targets.get("output.model"):
        writer = model.write()
        (writer.overwrite() if target.overwrite else writer).save(target.path)
        log.info("Saved the model to %s.", target.path)
    if tested := sources.get("data.test"):
        log.info("Testing on %s ...", tested.path)
        test = tested.with_features(saved.network.numFeatures).read(spark)
        print_report(saved, test, "data.test", _SKIP)
        if target := targets.get("output.predictions"):
            target.write(saved.transform(test, labelled=True, key="data.test"))
            log.info("Wrote the predictions to %s.", target.path)
    if curve := job.values["output.curve"]:
        log.info("%s", _draw(summary, curve))


def _start_from(initial: SavedModel, columns: Columns, job: JobFile) -> Columns:
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


def _fit(job: JobFile, columns: Columns, rows: DataFrame) -> Any:
    """Fit; an error names Params by their keys, and the data's own columns."""
    try:
        return fit(job.estimator, columns, rows)
    except ParamError as error:
        raise_mistakes(job.name, mistakes_in(error))
    except Exception as error:
        if text := _row_problem(error, job, columns, rows):
            raise ValueError(text) from error
        raise


def _row_problem(error: Exception, job: JobFile, columns: Columns, rows: DataFrame) -> str:
    """Return what is wrong with the rows, in columns of the data; empty if the error says it."""
    reason, problems = getattr(error, "reason", ""), getattr(error, "problems", ())
    if isinstance(error, DataError) and reason == "empty":
        return f"data.train: there are no rows in {job.values['data.train']}."
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
