"""``sparknn train``: a job file in, a model, its curve and its test results out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparknn.cli.apply import print_report
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.io import overlaps
from sparknn.cli.jobfile import JobFile, load_train, mistakes_in
from sparknn.cli.pipeline import Columns, column_mistakes, fit
from sparknn.cli.report import counted
from sparknn.cli.saved_model import SavedModel, count_invalid, load
from sparknn.cli.session import open_session
from sparknn.engine.interface import DataError
from sparknn.engine.sql import is_connect, quote_column
from sparknn.ml.checked_params import ParamError
from sparknn.ml.input_columns import kinds_of
from sparknn.ml.schema import case_matters

log = logging.getLogger("sparknn.cli")

_SKIP = "data.handleInvalid = 'skip' leaves such rows out."


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what a job file says; all that can be checked is checked before the training."""
    started = time.perf_counter()
    job = load_train(path, overrides)
    read, written = job.sources(), job.targets()
    if "output.model" not in written:
        log.warning("There is no output.model: the network is tested, but not saved.")
    log.info("Starting Spark ...")
    with open_session(f"sparknn train {path}", verbose=verbose) as spark:
        # The address of a server may hold a token.
        where = "Spark Connect" if is_connect(spark) else spark.sparkContext.master
        log.info("Spark %s on %s.", spark.version, where)
        mistakes = [source.problem(spark, key) for key, source in read.items()]
        mistakes += [target.problem(spark, key) for key, target in written.items()]
        mistakes += overlaps(spark, read.items(), written.items())
        raise_mistakes(job.name, mistakes)
        # Before the schema is known already: Spark reads all of a CSV to find its columns' types.
        log.info("Reading %s ...", read["data.train"].path)
        rows = {key: source.read(spark) for key, source in read.items()}
        model = _fit(job, _plan(job, rows), rows["data.train"])
        _keep(job, model, spark)
    log.info("All done in %.1f s.", time.perf_counter() - started)


def _plan(job: JobFile, rows: dict[str, DataFrame]) -> Columns:
    """Return the columns of the network, which are there in training rows and test rows."""
    train, names = rows["data.train"], tuple(job.features)
    spark, classifies = train.sparkSession, job.values["task"] == "classification"
    columns = Columns.of(train.schema, names, job.values["data.label"], classifies=classifies)
    if path := job.estimator.getInitialModel():
        columns = _start_from(load(spark, path, "training.initialModel"), columns, job)
    case, kinds = case_matters(spark), dict[str, str]()
    for key, data in rows.items():
        test = None if data is train else (key, kinds)
        found = column_mistakes(data.schema, columns, job.estimator, test, case_matters=case)
        source = job.sources()[key]
        # All columns of a CSV without rows are text.
        if (found or not test) and source.format == "csv" and not data.head(1):
            found = [f"{key}: there are no rows in {source.path}."]
        raise_mistakes(job.name, found)
        kinds = kinds or kinds_of(data.schema, names)
    if text := [name for name, kind in kinds.items() if kind == "text"]:
        log.info("Text, whose values become categories: %s.", ", ".join(text))
    return columns


def _start_from(initial: SavedModel, columns: Columns, job: JobFile) -> Columns:
    """Give the estimator the network of a saved model, and classes their numbers."""
    try:
        job.estimator._set(initialModel=initial.network)
    except ParamError as error:
        raise_mistakes(job.name, mistakes_in(error))
    if columns.index and not initial.class_names:
        text = "does not know the names of its classes; texts are numbered in alphabetical order."
        log.warning("training.initialModel %s", text)
    return replace(columns, names=tuple(initial.class_names) if columns.index else ())


def _keep(job: JobFile, model: Any, spark: SparkSession) -> None:
    """Save the model, test it, and draw its training curve."""
    saved, targets = SavedModel.of(model), job.targets()
    summary = saved.network.summary
    n_rows, n_rounds = counted(summary.n_rows, "row"), counted(summary.totalIterations, "round")
    layers, seconds = "-".join(map(str, saved.network.layers)), summary.seconds
    log.info("Trained %s on %s: %s in %.1f s.", layers, n_rows, n_rounds, seconds)
    if target := targets.get("output.model"):
        target.save(model, spark)
        log.info("Saved the model to %s.", target.path)
    if source := job.sources().get("data.test"):
        log.info("Testing on %s ...", source.path)
        test = source.with_features(saved.network.numFeatures).read(spark)
        print_report(saved, test, "data.test", _SKIP)
        if target := targets.get("output.predictions"):
            target.write(saved.transform(test, labelled=True, key="data.test"))
            log.info("Wrote the predictions to %s.", target.path)
    if curve := job.values["output.curve"]:
        log.info("%s", _draw(summary, curve))


def _fit(job: JobFile, columns: Columns, rows: DataFrame) -> Any:
    """Fit; an error names Params by their keys, and a text label by its column."""
    label = columns.label
    try:
        return fit(job.estimator, columns, rows)
    except ParamError as error:
        raise_mistakes(job.name, mistakes_in(error))
    except DataError as error:
        if error.reason == "one class" and columns.index:
            text = rows.select(quote_column(label)).dropna().head()
            only = f"data.label: column '{label}' holds one class only ({text and text[0]!r})"
            raise ValueError(f"{only}. Check for a filter that removed the others.") from error
        raise
    except Exception as error:
        # Of what went wrong in an indexer, only missing and unknown labels can be known.
        skips = job.estimator.getHandleInvalid() == "skip"
        if (
            columns.index
            and not skips
            and (found := count_invalid(rows, [label], label, columns.names))
        ):
            raise ValueError(f"data.train: {found}. {_SKIP}") from error
        raise


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
