"""``sparknn predict``: rows in, rows with predictions out."""

from __future__ import annotations

import logging
import time

from pyspark.sql import Observation
from pyspark.sql import functions as F

from sparknn.cli.errors import raise_mistakes
from sparknn.cli.invalid_values import count_invalid
from sparknn.cli.io import Source, Target, overlaps
from sparknn.cli.report import left_out
from sparknn.cli.saved_model import load
from sparknn.cli.session import open_session
from sparknn.engine.sql import is_connect, quote_column
from sparknn.ml.validators import did_you_mean

log = logging.getLogger("sparknn.cli")

_HINT = "--invalid skip leaves such rows out, --invalid keep predicts null."


def run(
    model_path: str,
    source: Source,
    target: Target,
    columns: str | None = None,
    invalid: str | None = None,
    *,
    verbose: bool = False,
) -> None:
    """Load, predict, write.

    Parameters
    ----------
    columns : str, optional
        Names of the columns to write, separated by commas; by default all.
    invalid : str, optional
        What happens to rows that cannot be predicted; by default what the model says.
    """
    with open_session("sparknn predict", verbose=verbose) as spark:
        mistakes = [source.problem(spark, "--data"), target.problem(spark, "--output")]
        if not is_connect(spark):
            read = [("--data", source), ("--model", Source(model_path, "model"))]
            mistakes += overlaps(spark, read, [("--output", target)])
        raise_mistakes("command line", mistakes)
        saved = load(spark, model_path)
        saved.set_invalid(invalid)
        rows = data = source.with_features(saved.network.numFeatures).read(spark)
        # Counted while they are written: the rows are not read again for it.
        before, after = Observation(), Observation()
        if saved.skips:
            rows = rows.observe(before, F.count(F.lit(1)).alias("n"))
        predicted = saved.transform(rows, labelled=False)
        names = [name.strip() for name in columns.split(",")] if columns else predicted.columns
        listed = f"; there are {', '.join(predicted.columns)}."
        raise_mistakes(
            "--columns",
            [
                f"there is no column '{name}'{did_you_mean(name, predicted.columns) or listed}"
                for name in names
                if name not in predicted.columns
            ],
        )
        log.info("Predicting the rows of %s ...", source.path)
        started = time.perf_counter()
        chosen = predicted.select(*map(quote_column, names))
        if saved.skips:
            chosen = chosen.observe(after, F.count(F.lit(1)).alias("n"))
        try:
            target.write(chosen)
        except Exception as error:
            used = saved.inputs(data, labelled=False)
            if not saved.skips and (found := count_invalid(data, used)):
                raise ValueError(f"--data: {'; '.join(found)}. {_HINT}") from error
            raise
        if saved.skips:
            left_out(before.get["n"], after.get["n"], labelled=False)
        log.info("Wrote %s in %.1f s.", target.path, time.perf_counter() - started)
