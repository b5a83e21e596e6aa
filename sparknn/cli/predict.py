"""``sparknn predict``: rows in, rows with predictions out."""

from __future__ import annotations

import logging
import time

from sparknn.cli.evaluate import check_format, load_model
from sparknn.cli.keys import OUTPUT_FORMATS
from sparknn.cli.mistakes import UsageError
from sparknn.cli.session import open_session
from sparknn.cli.tables import Source, Target, quoted
from sparknn.ml.rules import did_you_mean

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
    *,
    verbose: bool = False,
) -> None:
    """Load, predict, write.

    Parameters
    ----------
    columns : str, optional
        Names of the columns to write, separated by commas; by default all.
    """
    with open_session("sparknn predict", verbose=verbose) as spark:
        target.check_free(spark, "--output")
        model, network = load_model(spark, model_path)
        rows = source.with_features(network.numFeatures).read(spark)
        predicted = model.transform(rows)
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
        target.write(predicted.select(*map(quoted, names)))
        log.info("Wrote %s in %.1f s.", target.path, time.perf_counter() - started)
