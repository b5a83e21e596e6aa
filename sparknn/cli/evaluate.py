"""``sparknn evaluate``: a saved model against labelled rows."""

from __future__ import annotations

import logging

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from sparknn.cli.errors import raise_mistakes
from sparknn.cli.invalid_values import count_invalid
from sparknn.cli.io import Source
from sparknn.cli.report import left_out, report
from sparknn.cli.saved_model import SavedModel, load
from sparknn.cli.session import open_session

log = logging.getLogger("sparknn.cli")


def run(
    model_path: str, source: Source, invalid: str | None = None, *, verbose: bool = False
) -> None:
    """Load, predict, print how good it is.

    Parameters
    ----------
    invalid : str, optional
        What happens to rows that cannot be predicted; by default what the model says.
    """
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
    network, before = saved.network, Observation()
    counted = rows.observe(before, F.count(F.lit(1)).alias("n")) if saved.skips else rows
    predicted = saved.transform(counted, labelled=True, key=key)
    columns = network.getLabelCol(), network.getPredictionCol()
    try:
        lines, n_seen = report(
            predicted, *columns, saved.class_names, classifies=hasattr(network, "numClasses")
        )
    except Exception as error:
        used, names = saved.inputs(rows, labelled=True), saved.class_names
        text = saved.label_indexer.getInputCol() if names else ""
        if not saved.skips and (found := count_invalid(rows, used, text, names)):
            raise ValueError(f"{key}: {'; '.join(found)}. {hint}") from error
        raise
    if saved.skips:
        left_out(before.get["n"], n_seen, labelled=bool(saved.class_names))
    print("\n".join(lines), flush=True)
    return saved.transform(rows, labelled=True, key=key) if saved.skips else predicted
