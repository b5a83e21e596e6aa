"""A saved model at work: its stages one by one, with or without labels, and the rows left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparknn.cli.mistakes import UsageError
from sparknn.cli.report import counted
from sparknn.cli.stages import flat
from sparknn.engine.sql import quote_column
from sparknn.ml.schema import SchemaError
from sparknn.ml.validators import did_you_mean

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def transform(
    model: Any, network: Any, rows: DataFrame, *, labelled: bool, key: str = "--data"
) -> DataFrame:
    """Add a model's columns to rows.

    Parameters
    ----------
    labelled : bool
        Whether the label is needed. Without need the stage that numbers it is passed over: it
        would stop at labels that it does not know, or leave their rows out.
    key : str
        What named the rows, for messages.

    Raises
    ------
    UsageError
        If the rows lack a column, or have one that is in the way.
    """
    own = rows.columns
    label = network.getOrDefault("labelCol")
    for stage in flat(model):
        if _numbers(stage, label):
            if not labelled:
                continue
            _check_label(stage.getInputCol(), rows, own, key)
        else:
            _check_inputs(stage, rows, own, key)
        try:
            rows = _names_or_null(stage, rows) or stage.transform(rows)
        except SchemaError as error:
            raise UsageError(key, str(error).splitlines()) from error
    if labelled:
        _check_label(label, rows, own, key)
    return rows


def sources(model: Any, network: Any, rows: DataFrame, *, labelled: bool) -> list[str]:
    """The columns of the rows that a model reads; among them the label, where it is needed."""
    label = network.getOrDefault("labelCol")
    stages = [stage for stage in flat(model) if labelled or not _numbers(stage, label)]
    read = [name for stage in stages for name in _inputs(stage)] + [label] * labelled
    return [name for name in rows.columns if name in read]


def _check_label(label: str, rows: DataFrame, own: Sequence[str], key: str) -> None:
    """Say that the label is missing, before Spark does."""
    if label not in rows.columns:
        hint = did_you_mean(label, own) or f"; there are {', '.join(own)}."
        raise UsageError(key, [f"there is no label column {label!r}{hint}"])


def _check_inputs(stage: Any, rows: DataFrame, own: Sequence[str], key: str) -> None:
    """Say which columns are missing that a stage cannot do without, before Spark does.

    Only of stages of which that is known: an indexer passes over what is not there.
    """
    from pyspark.ml.feature import VectorAssembler

    from sparknn.ml.model import NetworkModel

    if not isinstance(stage, VectorAssembler | NetworkModel):
        return
    # Whether case matters, and what a dot means, the stage knows.
    there = {name.lower() for name in rows.columns}
    names = _inputs(stage)
    listed = ", ".join(own)
    missing = [name for name in names if name.lower() not in there and "." not in name]
    if missing:
        raise UsageError(
            key,
            [
                f"there is no column {name!r}"
                f"{did_you_mean(name, own) or f'; there are {listed}.'} The model was "
                f"trained on {', '.join(names)}."
                for name in missing
            ],
        )


def _inputs(stage: Any) -> list[str]:
    """The columns that a stage says it reads."""
    found: list[str] = []
    for param in ("inputCols", "inputCol", "featuresCol"):
        if stage.hasParam(param) and stage.isDefined(param):
            value = stage.getOrDefault(param)
            found += [value] if isinstance(value, str) else value
    return found


def set_invalid(model: Any, network: Any, invalid: str | None) -> None:
    """Let a model do with rows that cannot be predicted what a command's arguments say.

    An assembler that passes missing values on as NaN goes on doing so: the network judges them.
    """
    from pyspark.ml.feature import VectorAssembler

    if invalid is None:
        return
    for stage in flat(model):
        if isinstance(stage, VectorAssembler) and stage.getHandleInvalid() != "keep":
            stage.setHandleInvalid(invalid)
        # Only where labels are needed are they looked at, and there is no prediction without one.
        if _numbers(stage, network.getOrDefault("labelCol")) and invalid != "keep":
            stage.setHandleInvalid(invalid)
    network.setHandleInvalid(invalid)


def leaves_out(model: Any) -> bool:
    """Whether any stage leaves rows out."""
    return any(
        stage.hasParam("handleInvalid") and stage.getOrDefault("handleInvalid") == "skip"
        for stage in flat(model)
    )


def left_out(before: int, after: int, *, labelled: bool) -> str:
    """How many rows were left out, as a line; empty if none were."""
    if before <= after:
        return ""
    label = ", or their label is unknown to the model" if labelled else ""
    return (
        f"{before - after:,} of {counted(before, 'row')} were left out: their values are null, "
        f"NaN or infinite{label}."
    )


def _names_or_null(stage: Any, rows: DataFrame) -> DataFrame | None:
    """What IndexToString does, but for null, at which it fails; None for any other stage."""
    from pyspark.ml.feature import IndexToString
    from pyspark.sql import functions as F

    if not (isinstance(stage, IndexToString) and stage.isSet("labels")):
        return None
    names = F.array(*map(F.lit, stage.getLabels()))
    # get gives null where there is no such class; names[number] would be an error.
    number = F.col(quote_column(stage.getInputCol())).cast("int")
    return rows.withColumn(stage.getOutputCol(), F.get(names, number))


def _numbers(stage: Any, label: str) -> bool:
    """Whether a stage turns the texts of the label into numbers."""
    from pyspark.ml.feature import StringIndexerModel

    return isinstance(stage, StringIndexerModel) and stage.getOutputCol() == label
