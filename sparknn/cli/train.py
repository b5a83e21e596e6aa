"""``sparknn train``: a job file in, a model, its curve and its test results out."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparknn.cli import columns, config, curve, estimator, holes, stages
from sparknn.cli.evaluate import load_model, no_model, print_report
from sparknn.cli.mistakes import UsageError
from sparknn.cli.overlaps import Place, overlapping
from sparknn.cli.report import counted
from sparknn.cli.session import master, open_session
from sparknn.cli.tables import Source
from sparknn.engine.sql import quote_column
from sparknn.ml.checked_params import ParamError
from sparknn.ml.schema import SchemaError, case_matters

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparknn.ml.model import NetworkModel

log = logging.getLogger("sparknn.cli")

_SKIP = "data.handleInvalid = 'skip' leaves such rows out."


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what a job file says.

    Raises
    ------
    UsageError
        Naming every mistake in it, before anything is read; columns that are missing or of the
        wrong type as soon as the data's schema is known.
    """
    started = time.perf_counter()
    job, mistakes = config.load(path, overrides)
    net, more = estimator.build(job)
    mistakes += more
    mistakes += _nothing_kept(job, mistakes) + _wrong_places(job, mistakes)
    if mistakes:
        raise UsageError(job.name, mistakes)
    if job.model is None:
        log.warning("There is no output.model: the network is tested, but not saved.")
    log.info("Starting Spark ...")
    with open_session(f"sparknn train {path}", verbose=verbose) as spark:
        seconds = time.perf_counter() - started
        log.info("Spark %s on %s, started in %.1f s.", spark.version, master(spark), seconds)
        _train(job, net, spark)
    log.info("All done in %.1f s.", time.perf_counter() - started)


def _nothing_kept(job: config.TrainConfig, mistakes: Sequence[str]) -> list[str]:
    """Say so where a training would leave nothing behind."""
    named = any(mistake.startswith(("output.model", "data.test")) for mistake in mistakes)
    if job.model is not None or job.test is not None or named:
        return []
    return [
        "output.model: missing; without it, and without data.test, nothing is kept of a training."
    ]


def _wrong_places(job: config.TrainConfig, mistakes: Sequence[str]) -> list[str]:
    """Paths that can be seen to be wrong without Spark, by their keys."""
    sources = [("data.train", job.train), ("data.test", job.test)]
    targets = [("output.model", job.model), ("output.predictions", job.predictions)]
    found = []
    if not any(mistake.startswith("data.format") for mistake in mistakes):
        found += [source.missing(key) for key, source in sources if source is not None]
    initial = job.params.get("training.initialModel")
    if isinstance(initial, str):
        found.append(no_model("training.initialModel", initial))
    if job.curve is not None:
        problem = curve.problem(job.curve)
        found.append(f"output.curve: {problem}" if problem else "")
    overlaps = _overlaps(job)
    found += [
        target.in_the_way(key)
        for key, target in targets
        if target is not None and key not in overlaps
    ]
    return [mistake for mistake in [*found, *overlaps.values()] if mistake]


def _overlaps(job: config.TrainConfig) -> dict[str, str]:
    """Outputs that would destroy rows or each other, by their keys."""
    read = [("data.train", job.train), ("data.test", job.test)]
    written = [("output.model", job.model), ("output.predictions", job.predictions)]
    outputs = [Place.of(key, target) for key, target in written if target is not None]
    outputs += [Place("output.curve", job.curve)] if job.curve else []
    return overlapping(outputs, [Place.of(key, rows) for key, rows in read if rows is not None])


def _train(job: config.TrainConfig, net: estimator.Estimator, spark: SparkSession) -> None:
    for key, target in [("output.model", job.model), ("output.predictions", job.predictions)]:
        if target is not None:
            target.check_free(spark, key)
    initial = _continue_from(job, net, spark)
    # Before the first look already: Spark reads all of a CSV to find its columns' types.
    log.info("Reading %s ...", job.train.path)
    rows = job.train.read(spark, "data.train")
    found = columns.look_at(rows.schema, job)
    mistakes = found.mistakes or columns.taken(
        rows.schema, net, found, case_matters=case_matters(spark)
    )
    if initial is not None and not mistakes:
        mistakes = stages.continue_as(initial, found)
    if mistakes and (empty := _without_rows("data.train", job.train, rows)):
        mistakes = [empty]
    if job.test is not None:
        # What is wrong with the test rows shall be told now, not after the training.
        mistakes += _look_at_test(job, net, found, spark)
    if mistakes:
        raise UsageError(job.name, mistakes)
    model = _fit(job, net, found, rows)
    network = stages.network_in(model)
    assert network is not None
    log.info("%s", _trained(network))
    if job.model is not None:
        _save(model, job.model.path, overwrite=job.model.overwrite)
        log.info("Saved the model to %s.", job.model.path)
    if job.curve is not None:
        log.info("%s", curve.draw(network.summary, job.curve))
    if job.test is not None:
        _test(job, model, network, spark)


def _look_at_test(
    job: config.TrainConfig, net: estimator.Estimator, found: columns.Columns, spark: SparkSession
) -> list[str]:
    """What is wrong with the test rows, if it can be told: not without training's columns."""
    assert job.test is not None
    rows = job.test.read(spark, "data.test")
    if found.mistakes:
        return []
    mistakes = columns.look_at_test(rows.schema, job, found) or columns.taken(
        rows.schema, net, found, "data.test", case_matters=case_matters(spark)
    )
    empty = _without_rows("data.test", job.test, rows) if mistakes else ""
    return [empty] if empty else mistakes


def _continue_from(job: config.TrainConfig, net: estimator.Estimator, spark: SparkSession) -> Any:
    """Give the estimator the network of a saved model or pipeline, if the job names one.

    Returns
    -------
    Transformer or None
        That model or pipeline.
    """
    path = net.getOrDefault("initialModel")
    if not path:
        return None
    model, network = load_model(spark, path, "training.initialModel")
    try:
        net.setParams(initialModel=network)
    except ParamError as error:
        problems = [f"training.initialModel{text}" for text in error.problems.values()]
        raise UsageError(job.name, problems) from None
    return model


def _fit(
    job: config.TrainConfig, net: estimator.Estimator, found: columns.Columns, rows: DataFrame
) -> Any:
    """Fit; what the library says of Params is said of keys."""
    try:
        estimator.point_to(net, job, found)
        return stages.fit(net, found, rows)
    except (ParamError, SchemaError) as error:
        raise UsageError(job.name, estimator.mistakes_in_keys(error, found)) from error
    except Exception as error:
        told = _told_of_rows(error, job, found, rows)
        if told or isinstance(error, ValueError):
            raise ValueError(told or estimator.in_keys(str(error), found)) from error
        raise


def _told_of_rows(
    error: Exception, job: config.TrainConfig, found: columns.Columns, rows: DataFrame
) -> str:
    """What is wrong with the rows, in columns of the data; empty if the error says it as well."""
    if "The DataFrame is empty" in str(error):
        return f"data.train: there are no rows in {job.train.path}."
    if found.indexed and "one class only" in str(error):
        text = rows.select(quote_column(found.indexed)).dropna().head()
        return (
            f"data.label: column {found.indexed!r} holds one class only ({text and text[0]!r}): "
            f"there is nothing to tell apart. Look for a filter that took the other classes away."
        )
    if found.names and "Unseen label" in str(error):
        return (
            f"data.label: column {found.indexed!r} holds texts that training.initialModel does not "
            f"know; it knows {', '.join(found.names)}. {_SKIP}"
        )
    others = [name for name in (job.weight, job.validation_indicator) if name]
    told = holes.explained(error, rows, [*job.features, job.label, *others])
    return f"data.train: {told}. {_SKIP}" if told else ""


def _without_rows(key: str, source: Source, rows: DataFrame) -> str:
    """Say so where there are no rows: all columns of such a CSV are text, if there are any."""
    if source.format != "csv" or rows.head(1):
        return ""
    return f"{key}: there are no rows in {source.path}{'' if rows.columns else ', nor a header'}."


def _trained(network: NetworkModel) -> str:
    layers, summary = "-".join(map(str, network.layers)), network.summary
    return (
        f"Trained {layers} on {counted(summary.n_rows, 'row')} with "
        f"{counted(summary.n_workers, 'worker')} in {summary.seconds:.1f} s: "
        f"{counted(summary.totalIterations, 'round')}; of which {summary.ingest_s:.1f} s to take "
        f"the rows in."
    )


def _save(model: Any, path: str, *, overwrite: bool) -> None:
    writer = model.write()
    if overwrite:
        writer = writer.overwrite()
    writer.save(path)


def _test(job: config.TrainConfig, model: Any, network: Any, spark: SparkSession) -> None:
    assert job.test is not None
    log.info("Testing on %s ...", job.test.path)
    rows = job.test.with_features(network.numFeatures).read(spark, "data.test")
    predicted = print_report(model, network, rows, "data.test", _SKIP)
    if job.predictions is not None:
        job.predictions.write(predicted)
        log.info("Wrote the predictions to %s.", job.predictions.path)


def print_keys() -> None:
    """Every key of a job file, on stdout."""
    try:
        print("\n".join(estimator.key_lines()).strip(), flush=True)
    except BrokenPipeError:
        # `sparknn keys | head` has seen enough; nor shall Python's last flush complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
