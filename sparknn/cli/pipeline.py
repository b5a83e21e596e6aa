"""The stages around a network: columns assembled into features, text labels indexed and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import IndexToString, StringIndexer, StringIndexerModel, VectorAssembler
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DoubleType,
    NumericType,
    StringType,
    StructField,
    StructType,
)

from sparknn.cli.keys import PARAM_KEYS
from sparknn.ml.schema import SchemaError, SchemaProblem, check_training_schema, missing_problem

_PREDICTED_LABEL = "predictedLabel"


@dataclass(frozen=True)
class Columns:
    """The columns that a network reads, and those that they are made of.

    ``features`` is made of ``assembled``, if it is not there already; ``label`` numbers the texts
    of ``indexed``, if there are any: by ``names``, if an initial network knows them, or sorted.
    """

    features: str
    label: str
    assembled: tuple[str, ...] = ()
    indexed: str = ""
    names: tuple[str, ...] = ()


def plan_columns(
    schema: StructType, features: Sequence[str], label: str, classifies: bool
) -> Columns:
    """Find out from the rows' schema which stages the named columns need."""
    kinds = {item.name: item.dataType for item in schema.fields}
    ready = len(features) == 1 and isinstance(
        kinds.get(features[0]), VectorUDT | ArrayType | type(None)
    )
    is_text = classifies and isinstance(kinds.get(label), StringType)
    return Columns(
        features=features[0] if ready else free_name(schema, "features"),
        label=free_name(schema, "labelIndex") if is_text else label,
        assembled=() if ready else tuple(features),
        indexed=label if is_text else "",
    )


def column_mistakes(
    schema: StructType, columns: Columns, estimator: Any, key: str = "", *, case_matters: bool
) -> list[str]:
    """Return the columns that are missing, of the wrong type, or in the way.

    ``key`` names test rows, which need no weights; a mistake in training rows is named by the key
    that named the column.
    """
    problems = [*_input_problems(schema, columns)]
    # The estimator's own check does the rest, on the schema as the stages before it leave it. What
    # they read was checked above, whatever is wrong with it.
    fields = {field.name: field for field in schema.fields}
    if columns.assembled:
        fields[columns.features] = StructField(columns.features, VectorUDT())
    if columns.indexed:
        fields[columns.label] = StructField(columns.label, DoubleType())
    weight, indicator = (
        estimator.getOrDefault(name) if estimator.isDefined(name) and not key else None
        for name in ("weightCol", "validationIndicatorCol")
    )
    named = ("predictionCol", "probabilityCol", "rawPredictionCol")
    outputs = [(estimator.getOrDefault(name), name) for name in named if estimator.hasParam(name)]
    outputs += [(_PREDICTED_LABEL, "labelCol")] * bool(columns.indexed)
    try:
        check_training_schema(
            StructType([*fields.values()]),
            features=columns.features,
            label=columns.label,
            classifies=estimator._classifies,
            weight=weight,
            validation_indicator=indicator,
            outputs=[name for name, _ in outputs],
            case_matters=case_matters,
        )
    except SchemaError as error:
        problems += error.problems
    keys = {name: PARAM_KEYS[param] for name, param in outputs}
    return [
        f"{key or PARAM_KEYS.get(each.param) or keys[each.column]}: {each.message}"
        for each in problems
    ]


def _input_problems(schema: StructType, columns: Columns) -> Iterator[SchemaProblem]:
    """Yield what is wrong with the columns that stages read."""
    for name in columns.assembled:
        text = ""
        if problem := missing_problem(schema, name, "featuresCol", "features"):
            yield problem
        elif name in (columns.indexed, columns.label):
            text = "is the label."
        elif not isinstance(kind := schema[name].dataType, NumericType | BooleanType | VectorUDT):
            text = (
                f"has type {kind.simpleString()}; expected numbers, or one column of vectors or "
                f"arrays. Encode text first, with StringIndexer and OneHotEncoder."
            )
        if text:
            yield SchemaProblem(name, "featuresCol", f"Column '{name}' {text}")
    if columns.indexed:
        yield from filter(None, [missing_problem(schema, columns.indexed, "labelCol", "labels")])


def preprocessing(columns: Columns, handle_invalid: str = "error") -> list[Any]:
    """Return the stages that make the columns a network reads; none if they are there."""
    made: list[Any] = []
    if columns.assembled:
        assembler = VectorAssembler(inputCols=list(columns.assembled), outputCol=columns.features)
        # Missing values become NaN, which the estimator's handleInvalid then judges and counts.
        made.append(assembler.setHandleInvalid("keep"))
    if columns.names:
        names, indexed = list(columns.names), columns.indexed
        made.append(StringIndexerModel.from_labels(names, indexed, columns.label, handle_invalid))
    elif columns.indexed:
        indexer = StringIndexer(inputCol=columns.indexed, outputCol=columns.label)
        made.append(indexer.setStringOrderType("alphabetAsc").setHandleInvalid(handle_invalid))
    return made


def fit(estimator: Any, columns: Columns, rows: DataFrame) -> Any:
    """Fit the estimator; return its model, in a ``PipelineModel`` if its columns need stages."""
    estimator._set(featuresCol=columns.features, labelCol=columns.label)
    # 'keep' is for features: a missing label is not a class.
    skips = estimator.getHandleInvalid() == "skip"
    before = preprocessing(columns, "skip" if skips else "error")
    if not before:
        return estimator.fit(rows)
    fitted = Pipeline(stages=[*before, estimator]).fit(rows)
    if not columns.indexed:
        return fitted
    indexer: Any = fitted.stages[-2]
    labels, prediction = list(indexer.labels), estimator.getPredictionCol()
    names = IndexToString(inputCol=prediction, outputCol=_PREDICTED_LABEL, labels=labels)
    return PipelineModel([*fitted.stages, names])


def free_name(schema: StructType, name: str) -> str:
    """Return ``name`` with underscores until no column is called so, in whatever case."""
    taken = {each.lower() for each in schema.names}
    while name.lower() in taken:
        name += "_"
    return name
