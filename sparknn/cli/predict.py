"""``sparknn predict``: rows in, rows with predictions out."""

from __future__ import annotations

import logging
import time

from pyspark.sql import Observation
from pyspark.sql import functions as F

from sparknn.cli.errors import raise_mistakes
from sparknn.cli.io import Source, Target, overlaps
from sparknn.cli.report import log_left_out
from sparknn.cli.saved_model import load, missing_columns
from sparknn.cli.session import open_session
from sparknn.engine.sql import quote_column

log = logging.getLogger("sparknn.cli")

_HINT = "--invalid skip leaves such rows out, --invalid keep predicts null."


def run(
    model_path: str,
    source: Source,
    target: Target,
    columns: str | None,
    invalid: str | None,
    *,
    verbose: bool = False,
) -> None:
    """Load, predict, write; ``columns`` are the names to write, separated by commas."""
    with open_session("sparknn predict", verbose=verbose) as spark:
        read = [("--data", source), ("--model", Source(model_path, "model"))]
        mistakes = [source.problem(spark, "--data"), target.problem(spark, "--output")]
        mistakes += overlaps(spark, read, [("--output", target)])
        raise_mistakes("command line", mistakes)
        saved = load(spark, model_path)
        saved.set_invalid(invalid)
        data = source.with_features(saved.network.numFeatures).read(spark)
        # Counted while they are written: the rows are not read again for it.
        before, after, count = Observation(), Observation(), F.count(F.lit(1)).alias("n")
        rows = data.observe(before, count) if saved.skips else data
        predicted = saved.transform(rows, labelled=False)
        names = [name.strip() for name in columns.split(",")] if columns else predicted.columns
        raise_mistakes("--columns", missing_columns(names, predicted.columns))
        log.info("Predicting the rows of %s ...", source.path)
        started = time.perf_counter()
        chosen = predicted.select(*map(quote_column, names))
        with saved.explaining(data, "--data", _HINT, labelled=False):
            target.write(chosen.observe(after, count) if saved.skips else chosen)
        if saved.skips:
            log_left_out(before.get["n"], after.get["n"], labelled=False)
        log.info("Wrote %s in %.1f s.", target.path, time.perf_counter() - started)
