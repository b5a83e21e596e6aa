"""``sparknn evaluate``: a saved model against labelled rows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sparknn.cli import holes, places, report, saved, stages
from sparknn.cli.keys import FORMATS
from sparknn.cli.mistakes import PathError, UsageError
from sparknn.cli.session import open_session
from sparknn.cli.tables import Source
from sparknn.engine.worker_errors import root_cause
from sparknn.ml.validators import did_you_mean

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger("sparknn.cli")


class NoModelError(ValueError):
    """What is at a path is no model that can be used."""


def source(path: str, format_: str | None, options: Sequence[str]) -> Source:
    """The rows that a command's arguments name.

    Raises
    ------
    UsageError
        If the format is unknown or an option is not KEY=VALUE.
    """
    mistakes = check_format("--format", format_, FORMATS)
    mistakes += [
        f"--option {text}: expected KEY=VALUE, such as header=true."
        for text in options
        if "=" not in text
    ]
    if mistakes:
        raise UsageError("command line", mistakes)
    pairs = dict(text.split("=", 1) for text in options)
    return Source.of(path, format_, pairs)


def check_format(option: str, format_: str | None, known: Sequence[str]) -> list[str]:
    """What is wrong with a format, as a list of at most one mistake."""
    if format_ is None or format_ in known:
        return []
    hint = did_you_mean(format_, known) or "."
    return [f"{option} {format_}: expected one of {', '.join(known)}{hint}"]


def check_places(mistakes: Iterable[str]) -> None:
    """Stop before Spark starts if a path can be seen to be wrong.

    Raises
    ------
    UsageError
    """
    found = [mistake for mistake in mistakes if mistake]
    if found:
        raise UsageError("command line", found)


def no_model(key: str, path: str) -> str:
    """What can be said before Spark starts: a line if there is no model, otherwise empty."""
    if not path or places.local(path) in (None, True):
        return ""
    return f"{key}: there is no model at {path}. Give the folder that a model was saved to."


def load_model(spark: SparkSession, path: str, key: str = "--model") -> tuple[Any, Any]:
    """A saved model or pipeline, and the network in it.

    Parameters
    ----------
    key : str
        What named the path, for messages.

    Raises
    ------
    PathError
        If there is none at the path.
    NoModelError
        If what is there is no network, or damaged.
    """
    from pyspark.errors import AnalysisException
    from pyspark.ml.util import DefaultParamsReader

    from sparknn.ml.persistence import ModelFormatError

    try:
        spark.read.text(f"{path.rstrip('/')}/metadata")
    except AnalysisException as error:
        if not places.is_missing(error):
            raise
        raise PathError(
            f"{key}: there is no model at {path}. Give the folder that a model was saved to."
        ) from None
    # pyspark 3.5 knows the context here, Spark Connect the session.
    context = getattr(spark, "_sc", spark)
    try:
        model: Any = DefaultParamsReader.loadParamsInstance(path, context)
    except ModelFormatError:  # it names the path and what is wrong
        raise
    except (ImportError, AttributeError) as error:
        raise NoModelError(
            f"{key}: {path} needs a class that is not there ({error}). Give Python the package "
            f"that it was saved with."
        ) from error
    except Exception as error:
        # Spark reports metadata that are cut off in as many ways as there are places to cut.
        raise NoModelError(
            f"{key}: the model at {path} cannot be read ({type(error).__name__}: "
            f"{root_cause(error)}). The directory is incomplete or was changed; copy it again, or "
            f"save the model again."
        ) from error
    network = stages.network_in(model)
    if network is None:
        raise NoModelError(f"{path} holds a {type(model).__name__} without a neural network in it.")
    return model, network


def run(
    model_path: str, source: Source, invalid: str | None = None, *, verbose: bool = False
) -> None:
    """Load, predict, print how good it is.

    Parameters
    ----------
    invalid : str, optional
        What becomes of rows that cannot be predicted; by default what the model says.
    """
    check_places([no_model("--model", model_path), source.missing("--data")])
    with open_session("sparknn evaluate", verbose=verbose) as spark:
        model, network = load_model(spark, model_path)
        saved.set_invalid(model, network, invalid)
        log.info("Evaluating %s on %s ...", model_path, source.path)
        rows = source.with_features(network.numFeatures).read(spark, "--data")
        print_report(model, network, rows)


def print_report(
    model: Any,
    network: Any,
    rows: DataFrame,
    key: str = "--data",
    advice: str = "--invalid skip leaves such rows out.",
) -> DataFrame:
    """Accuracy and confusion matrix, or the errors of a regression, on stdout.

    Parameters
    ----------
    key, advice : str
        What named the rows, and what to do where they lack values, for messages.

    Returns
    -------
    DataFrame
        The rows with their predictions.
    """
    predicted = saved.transform(model, network, rows, labelled=True, key=key)
    names = stages.class_names(model, network.getOrDefault("labelCol"))
    try:
        lines, n_seen = _report(network, predicted, names)
    except Exception as error:
        read = saved.sources(model, network, rows, labelled=True)
        told = holes.explained(error, rows, read)
        if "Unseen label" in str(error) and names:
            told = f"there are labels besides those that the model knows, {', '.join(names)}"
        if told:
            raise ValueError(f"{key}: {told}. {advice}") from error
        raise
    if saved.leaves_out(model):
        line = saved.left_out(rows.count(), n_seen, labelled=bool(names))
        if line:
            log.info("%s", line)
    print("\n".join(lines), flush=True)
    return predicted


def _report(network: Any, predicted: DataFrame, names: Sequence[str]) -> tuple[list[str], int]:
    """The lines, and how many rows they are about."""
    label, prediction = network.getOrDefault("labelCol"), network.getOrDefault("predictionCol")
    if hasattr(network, "numClasses"):
        confusion = report.confusion(predicted, label, prediction, names)
        return confusion.lines(), confusion.n_rows + confusion.n_unlabelled
    errors = report.regression_errors(predicted, label, prediction)
    return report.regression_lines(errors), max((e.n_rows for e in errors), default=0)
