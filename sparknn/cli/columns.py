"""The stages around a network: columns assembled into features, text labels indexed and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparknn.ml.rules import did_you_mean

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

    from sparknn.cli.config import TrainConfig
    from sparknn.cli.estimator import Estimator
    from sparknn.ml.model import NetworkModel

# Names for the columns that the stages make.
_FEATURES, _LABEL_INDEX, _PREDICTED_LABEL = "features", "labelIndex", "predictedLabel"


@dataclass
class Columns:
    """What the columns of the rows need before a network can read them.

    Parameters
    ----------
    features, label : str
        The columns that the network reads.
    assembled : tuple of str
        The columns that make up ``features``; empty if it is there already.
    indexed : str
        The text column that ``label`` numbers; empty if labels are numbers.
    mistakes : list of str
        Columns that are missing or of the wrong type, by their keys.
    """

    features: str
    label: str
    assembled: tuple[str, ...] = ()
    indexed: str = ""
    mistakes: list[str] = field(default_factory=list)


def look_at(schema: StructType, config: TrainConfig) -> Columns:
    """Find out from the rows' schema what the columns named in the job file need."""
    mistakes = []
    named = [("data.features", name) for name in config.features]
    named += [("data.label", config.label)]
    named += [("data.weight", config.weight)] if config.weight else []
    if config.validation_indicator:
        named += [("data.validationIndicator", config.validation_indicator)]
    for key, name in named:
        if name not in schema.names:
            mistakes.append(
                f"{key}: there is no column {name!r} in {config.train.path}"
                f"{did_you_mean(name, schema.names) or f'; it has {_listed(schema.names)}.'}"
            )
    if config.label in config.features:
        mistakes.append(f"data.features: {config.label!r} is the label.")
    columns = Columns(config.features[0], config.label, mistakes=mistakes)
    if mistakes:
        return columns
    _look_at_features(schema, config.features, columns)
    if config.task == "classification" and _type(schema, config.label) == "string":
        columns.label, columns.indexed = free_name(schema, _LABEL_INDEX), config.label
    return columns


def _look_at_features(schema: StructType, names: Sequence[str], columns: Columns) -> None:
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import ArrayType, BooleanType, NumericType

    types = [schema[name].dataType for name in names]
    if len(names) == 1 and isinstance(types[0], VectorUDT | ArrayType):
        return
    for name, type_ in zip(names, types, strict=True):
        if not isinstance(type_, NumericType | BooleanType | VectorUDT):
            columns.mistakes.append(
                f"data.features: column {name!r} is of type {type_.simpleString()}; expected "
                f"numbers, or a single column of vectors or arrays."
                f"{_text_advice(type_.simpleString())}"
            )
    columns.features, columns.assembled = free_name(schema, _FEATURES), tuple(names)


def _text_advice(type_: str) -> str:
    return " Turn categories into numbers first, with StringIndexer and OneHotEncoder." * (
        type_ == "string"
    )


def fit(estimator: Estimator, columns: Columns, rows: DataFrame) -> Any:
    """Fit the estimator and the stages around it.

    Returns
    -------
    Transformer
        The network's model itself if its columns need nothing, otherwise a ``PipelineModel``.
    """
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import IndexToString

    before = stages(columns, estimator.getOrDefault("handleInvalid"))
    if not before:
        return estimator.fit(rows)
    fitted = Pipeline(stages=[*before, estimator]).fit(rows)
    if not columns.indexed:
        return fitted
    names = IndexToString(
        inputCol=estimator.getOrDefault("predictionCol"),
        outputCol=_PREDICTED_LABEL,
        labels=class_names(fitted, columns.label),
    )
    return PipelineModel([*fitted.stages, names])


def stages(columns: Columns, handle_invalid: str = "error") -> list[Any]:
    """What makes the columns that a network reads, in order; empty if they are there already."""
    from pyspark.ml.feature import StringIndexer, VectorAssembler

    made: list[Any] = []
    dotted = [name for name in columns.assembled if "." in name]
    if dotted:
        raise ValueError(
            f"Spark's VectorAssembler takes the dot in {dotted} for a field of a struct. Rename "
            f"the columns of the data: without dots, they can be features."
        )
    if columns.assembled:
        # Missing values become NaN, which the estimator's handleInvalid then judges and counts.
        made.append(
            VectorAssembler(
                inputCols=list(columns.assembled),
                outputCol=columns.features,
                handleInvalid="keep",
            )
        )
    if columns.indexed:
        made.append(
            StringIndexer(
                inputCol=columns.indexed,
                outputCol=columns.label,
                stringOrderType="alphabetAsc",
                handleInvalid=handle_invalid,
            )
        )
    return made


def network_in(model: Any) -> NetworkModel | None:
    """The last network in a model or a pipeline; None if there is none."""
    from sparknn.ml.model import NetworkModel

    if isinstance(model, NetworkModel):
        return model
    if hasattr(model, "bestModel"):  # CrossValidatorModel, TrainValidationSplitModel
        return network_in(model.bestModel)
    found = [network_in(stage) for stage in getattr(model, "stages", [])]
    return next((stage for stage in reversed(found) if stage is not None), None)


def class_names(model: Any, label: str) -> list[str]:
    """The texts that the numbers in column ``label`` stand for; empty if they are just numbers."""
    from pyspark.ml.feature import StringIndexerModel

    for stage in getattr(model, "stages", []):
        if isinstance(stage, StringIndexerModel) and stage.getOutputCol() == label:
            return list(stage.labels)
    return []


def _type(schema: StructType, name: str) -> str:
    return schema[name].dataType.simpleString()


def free_name(schema: StructType, name: str) -> str:
    """``name``, with underscores until no column is called so."""
    while name in schema.names:
        name += "_"
    return name


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
