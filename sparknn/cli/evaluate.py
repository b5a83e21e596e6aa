"""``sparknn evaluate``: a saved model against labelled rows."""

from __future__ import annotations

import logging

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from sparknn.cli import report
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.io import Source
from sparknn.cli.saved_model import SavedModel, load
from sparknn.cli.session import open_session

log = logging.getLogger("sparknn.cli")


def run(model_path: str, source: Source, invalid: str | None, *, verbose: bool = False) -> None:
    """Load, predict, print how good it is; ``invalid`` replaces the model's handleInvalid."""
    with open_session("sparknn evaluate", verbose=verbose) as spark:
        raise_mistakes("command line", [source.problem(spark, "--data")])
        saved = load(spark, model_path)
        saved.set_invalid(invalid)
        log.info("Evaluating %s on %s ...", model_path, source.path)
        rows = source.with_features(saved.network.numFeatures).read(spark)
        print_report(saved, rows, "--data", "--invalid skip leaves such rows out.")


def print_report(saved: SavedModel, rows: DataFrame, key: str, hint: str) -> DataFrame:
    """Print accuracy and confusion matrix, or the errors of a regression.

    Parameters
    ----------
    key, hint : str
        What named the rows, and what to do where they lack values, for messages.

    Returns
    -------
    DataFrame
        The rows with their predictions.
    """
    predicted = saved.transform(rows, labelled=True, key=key)
    columns = saved.network.getLabelCol(), saved.network.getPredictionCol()
    names, before = saved.class_names, Observation()
    # An observation serves one action: the caller's DataFrame has none.
    counted = rows.observe(before, F.count(F.lit(1)).alias("n")) if saved.skips else rows
    with saved.explaining(rows, key, hint, labelled=True):
        measured = saved.transform(counted, labelled=True, key=key)
        if hasattr(saved.network, "numClasses"):
            counts, n_unlabelled = report.count_pairs(measured, *columns)
            lines = report.confusion_lines(counts, names, n_unlabelled)
            n_seen = sum(counts.values()) + n_unlabelled
        else:
            errors = report.regression_errors(measured, *columns)
            lines = report.regression_lines(errors)
            n_seen = max((n for n, *_ in errors), default=0)
    if saved.skips:
        report.log_left_out(before.get["n"], n_seen, labelled=bool(names))
    print("\n".join(lines), flush=True)
    return predicted
