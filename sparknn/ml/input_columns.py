"""Assemble the columns of a table into features: numbers, booleans, categories, text, vectors.

The values of text columns are found when a fit begins, in one job; the model keeps them. Everything
is column expressions: no Python, no stage besides the estimator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, NumericType, StringType, StructType

from sparknn.core.columns import InputColumn, InputColumns
from sparknn.engine.interface import DataError
from sparknn.engine.sql import quote_column
from sparknn.ml.attributes import feature_attributes, n_values_of
from sparknn.ml.schema import SchemaError, SchemaProblem, missing_problem, raise_all

#: Name of the assembled column, in messages too.
FEATURES = "inputCols"
# Values of a text column, at most: every row looks its value up among them.
_MOST_VALUES = 10_000


def expression(column: InputColumn, kind: DataType) -> Column:
    """Return a column's features as an array of doubles, for a column of this type."""
    values = F.col(quote_column(column.name))
    if column.kind == "vector":
        return vector_to_array(values)
    if column.kind != "text":
        return F.array(values.cast("double"))
    if not isinstance(kind, StringType):
        values = values.cast("string")
    codes = json.dumps({value: code for code, value in enumerate(column.values)})
    known = F.element_at(F.from_json(F.lit(codes), "map<string,double>"), values)
    code = F.when(values.isNull(), F.lit(column.code_of_null))
    return F.array(code.otherwise(F.coalesce(known, F.lit(math.nan))))


def assemble(inputs: InputColumns, df: DataFrame) -> DataFrame:
    """Add the features as column ``FEATURES``, with names and categories as metadata.

    Raises
    ------
    SchemaError
        If columns are missing, or of another kind than in training.
    """
    check_columns(df.schema, [each.name for each in inputs.columns])
    problems = [
        SchemaProblem(
            each.name,
            "inputCols",
            f"Column '{each.name}' has type {df.schema[each.name].dataType.simpleString()}; "
            f"the model was trained on a {each.kind} column.",
        )
        for each in inputs.columns
        if _kind(df.schema[each.name].dataType) != _broad(each.kind)
    ]
    raise_all(problems)
    parts = [expression(each, df.schema[each.name].dataType) for each in inputs.columns]
    return df.withColumn(FEATURES, F.concat(*parts).alias(FEATURES)).withMetadata(
        FEATURES, _metadata(inputs)
    )


def _metadata(inputs: InputColumns) -> dict[str, Any]:
    numeric, nominal = [], []
    index = 0
    for each in inputs.columns:
        for number in range(each.size):
            name = each.name if each.size == 1 else f"{each.name}_{number}"
            attribute: dict[str, Any] = {"idx": index, "name": name}
            index += 1
            if each.n_values:
                nominal.append({**attribute, "num_vals": each.n_values})
            else:
                numeric.append(attribute)
    groups = {"numeric": numeric, "nominal": nominal}
    attributes = {kind: group for kind, group in groups.items() if group}
    return {"ml_attr": {"attrs": attributes, "num_attrs": index}}


def check_columns(schema: StructType, names: Sequence[str]) -> None:
    """Raise SchemaError if a column is missing, or of a type that no network takes."""
    problems = [missing_problem(schema, name, "inputCols", "features") for name in names]
    raise_all(problems)
    raise_all(
        SchemaProblem(
            name,
            "inputCols",
            f"Column '{name}' has type {schema[name].dataType.simpleString()}; expected numbers, "
            "booleans, text or vectors. Convert it first, a time with unix_timestamp.",
        )
        for name in names
        if _kind(schema[name].dataType) == ""
    )
    if FEATURES in schema.names:
        message = f"Column '{FEATURES}' exists, which features are assembled in. Rename it."
        raise SchemaError(SchemaProblem(FEATURES, "inputCols", message))


def find_columns(df: DataFrame, names: Sequence[str]) -> InputColumns:
    """Describe the columns of a table; the values of text columns take a Spark job.

    Raises
    ------
    SchemaError
        For columns that are missing or of a type that no network takes.
    DataError
        If a text column has too many values.
    """
    schema = df.schema
    check_columns(schema, names)
    text = [name for name in names if _kind(schema[name].dataType) == "text"]
    found = _values(df, text)
    columns = []
    for name in names:
        kind = _kind(schema[name].dataType)
        if kind == "text":
            known = sorted(value for value in found[name] if value is not None)
            columns.append(InputColumn(name, kind, 1, len(found[name]), tuple(known)))
        elif kind == "vector":
            size = feature_attributes(schema[name]).size
            if not size:
                message = (
                    f"Vector column '{name}' does not declare its size. Set it with "
                    "VectorSizeHint, or use it as featuresCol."
                )
                raise SchemaError(SchemaProblem(name, "inputCols", message))
            columns.append(InputColumn(name, kind, size))
        elif n_values := n_values_of(schema[name]):
            columns.append(InputColumn(name, "category", 1, n_values))
        else:
            columns.append(InputColumn(name, kind))
    return InputColumns(tuple(columns))


def _values(df: DataFrame, names: Sequence[str]) -> dict[str, set[str | None]]:
    """Return the distinct values of text columns, None for null."""
    found: dict[str, set[str | None]] = {name: set() for name in names}
    if not names:
        return found
    pairs = [
        F.struct(F.lit(number).alias("column"), F.col(quote_column(name)).alias("value"))
        for number, name in enumerate(names)
    ]
    distinct = df.select(F.explode(F.array(*pairs)).alias("pair")).select("pair.*").distinct()
    for number, value in distinct.limit(len(names) * (_MOST_VALUES + 1)).collect():
        found[names[number]].add(value)
    for name, values in found.items():
        if len(values) > _MOST_VALUES:
            raise DataError(
                f"Text column '{name}' has more than {_MOST_VALUES:,} values. Index it with "
                "StringIndexer, which has no limit, or leave it out if it is an identifier."
            )
    return found


def _kind(found: DataType) -> str:
    if isinstance(found, NumericType | BooleanType):
        return "number"
    if isinstance(found, StringType):
        return "text"
    return "vector" if isinstance(found, VectorUDT) else ""


def _broad(kind: str) -> str:
    return "number" if kind == "category" else kind
