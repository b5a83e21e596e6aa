"""``sparknn predict``: rows in, rows with predictions out."""

from __future__ import annotations

import logging
import time

from sparknn.cli import holes, saved
from sparknn.cli.evaluate import check_format, check_places, load_model, no_model
from sparknn.cli.keys import OUTPUT_FORMATS
from sparknn.cli.mistakes import UsageError
from sparknn.cli.overlaps import Place, overlapping
from sparknn.cli.session import open_session
from sparknn.cli.tables import Source, Target
from sparknn.engine.sql import quote_column
from sparknn.ml.validators import did_you_mean

log = logging.getLogger("sparknn.cli")


def target(path: str, format_: str | None, overwrite: bool) -> Target:
    """Where a command's arguments say that rows shall go."""
    mistakes = check_format("--output-format", format_, OUTPUT_FORMATS)
    if mistakes:
        raise UsageError("command line", mistakes)
    return Target.of(path, format_, overwrite=overwrite)


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
        What becomes of rows that cannot be predicted; by default what the model says.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    inputs = [Place.of("--data", source), Place("--model", model_path)]
    overlaps = overlapping([Place.of("--output", target)], inputs)
    wrong = list(overlaps.values()) or [target.in_the_way("--output")]
    check_places([no_model("--model", model_path), source.missing("--data"), *wrong])
    with open_session("sparknn predict", verbose=verbose) as spark:
        target.check_free(spark, "--output")
        model, network = load_model(spark, model_path)
        saved.set_invalid(model, network, invalid)
        rows = data = source.with_features(network.numFeatures).read(spark, "--data")
        # Counted while they are written: the rows are not read again for it.
        before, after = Observation(), Observation()
        if saved.leaves_out(model):
            rows = rows.observe(before, F.count(F.lit(1)).alias("n"))
        predicted = saved.transform(model, network, rows, labelled=False)
        names = [name.strip() for name in columns.split(",")] if columns else predicted.columns
        unknown = [name for name in names if name not in predicted.columns]
        if unknown:
            raise UsageError(
                "--columns",
                [
                    f"there is no column {name!r}"
                    + (
                        did_you_mean(name, predicted.columns)
                        or f"; there are {', '.join(predicted.columns)}."
                    )
                    for name in unknown
                ],
            )
        log.info("Predicting the rows of %s ...", source.path)
        started = time.perf_counter()
        chosen = predicted.select(*map(quote_column, names))
        if saved.leaves_out(model):
            chosen = chosen.observe(after, F.count(F.lit(1)).alias("n"))
        try:
            target.write(chosen)
        except Exception as error:
            read = saved.sources(model, network, data, labelled=False)
            told = holes.explained(error, data, read)
            if told:
                advice = "--invalid skip leaves such rows out, --invalid keep predicts null."
                raise ValueError(f"--data: {told}. {advice}") from error
            raise
        if saved.leaves_out(model):
            line = saved.left_out(before.get["n"], after.get["n"], labelled=False)
            if line:
                log.info("%s", line)
        log.info("Wrote %s in %.1f s.", target.path, time.perf_counter() - started)
