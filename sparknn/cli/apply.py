"""``sparknn evaluate`` and ``sparknn predict``: a saved model applied to rows."""

from __future__ import annotations

import logging
import time
from argparse import Namespace

from pyspark.sql import DataFrame

from sparknn.cli.errors import raise_mistakes
from sparknn.cli.io import Source, Target, overlaps
from sparknn.cli.report import confusion_lines, regression_lines
from sparknn.cli.saved_model import SavedModel, load, missing_columns
from sparknn.cli.session import open_session
from sparknn.engine.sql import quote_column
from sparknn.ml.evaluation import ClassificationSummary, RegressionSummary

log = logging.getLogger("sparknn.cli")

_SKIP = "--invalid skip leaves such rows out."
_KEEP = "--invalid skip leaves such rows out, --invalid keep predicts null."


def run(given: Namespace) -> None:
    """Evaluate, or predict, as the command line says."""
    wrong = [text for text in given.option if "=" not in text]
    mistakes = [f"--option {text}: expected KEY=VALUE, such as header=true." for text in wrong]
    target = None
    if given.command == "predict":
        target = Target.of(given.output, given.output_format, given.overwrite)
        mistakes += [target.format_problem("--output")]
    raise_mistakes("command line", mistakes)
    options = dict(text.split("=", 1) for text in given.option)
    source = Source.of(given.data, given.format, options)
    with open_session(f"sparknn {given.command}", verbose=given.verbose) as spark:
        mistakes = [source.problem(spark, "--data")]
        if target is not None:
            inputs = [("--data", source), ("--model", Source(given.model, "model"))]
            mistakes += [target.problem(spark, "--output")]
            mistakes += overlaps(spark, inputs, [("--output", target)])
        raise_mistakes("command line", mistakes)
        saved = load(spark, given.model)
        if given.invalid is not None:
            saved.set_invalid(given.invalid)
        rows = source.with_features(saved.network.numFeatures).read(spark)
        log.info("Applying %s to %s ...", given.model, source.path)
        if target is None:
            print_report(saved, rows, "--data", _SKIP)
        else:
            _predict(saved, rows, target, given.columns)


def _predict(saved: SavedModel, rows: DataFrame, target: Target, columns: str | None) -> None:
    """Write rows with their predictions; ``columns`` are names separated by commas."""
    started = time.perf_counter()
    with saved.applied(rows, "--data", _KEEP, labelled=False) as predicted:
        names = [name.strip() for name in columns.split(",")] if columns else predicted.columns
        raise_mistakes("--columns", missing_columns(predicted.schema, names))
        target.write(predicted.select(*map(quote_column, names)))
    log.info("Wrote %s in %.1f s.", target.path, time.perf_counter() - started)


def print_report(saved: SavedModel, rows: DataFrame, key: str, hint: str) -> None:
    """Print how good predictions are; ``hint`` says what to do where rows lack values."""
    columns = saved.network.getLabelCol(), saved.network.getPredictionCol()
    with saved.applied(rows, key, hint, labelled=True) as predicted:
        if hasattr(saved.network, "numClasses"):
            counts = ClassificationSummary(predicted, *columns).counts
            lines = confusion_lines(counts, saved.class_names)
        else:
            loss = saved.network.network.loss
            lines = regression_lines(RegressionSummary(predicted, *columns, loss=loss))
    print("\n".join(lines), flush=True)
