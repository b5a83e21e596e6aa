"""Assemble the columns of a table into features: numbers, booleans, categories, text, vectors.

The values of text columns are found when a fit begins, in one job; the model keeps them. Everything
is column expressions: no Python, no stage besides the estimator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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
from sparknn.ml.schema import SchemaProblem, missing_problem, raise_all

#: Name of the assembled column, in messages too.
FEATURES = "inputCols"
# Values of a text column, at most: every row looks its value up among them.
_MOST_VALUES = 10_000
# A category is a number, too.
_BROAD = {"category": "number"}


def expression(column: InputColumn) -> Column:
    """Return a column's features as an array of doubles."""
    values = F.col(quote_column(column.name))
    if column.kind == "vector":
        vector, missing = vector_to_array(values), F.array_repeat(F.lit(math.nan), column.size)
        message = (
            f"Vector column '{column.name}' has rows of another size than the {column.size} that "
            "its metadata declared in training. Assemble it again, with VectorAssembler."
        )
        return (
            F.when(values.isNull(), missing)
            .when(F.size(vector) == column.size, vector)
            .otherwise(F.raise_error(F.lit(message)).cast("array<double>"))
        )
    if column.kind != "text":
        return F.array(values.cast("double"))
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
    kinds = {each.name: _BROAD.get(each.kind, each.kind) for each in inputs.columns}
    raise_all(column_problems(df.schema, inputs.names, kinds))
    features = F.concat(*map(expression, inputs.columns)).alias(FEATURES)
    return df.withColumn(FEATURES, features).withMetadata(FEATURES, _metadata(inputs))


def _metadata(inputs: InputColumns) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = {}
    n_values = [each.n_values for each in inputs.columns for _ in range(each.size)]
    for index, (name, count) in enumerate(zip(inputs.feature_names, n_values, strict=True)):
        kind, values = ("nominal", {"num_vals": count}) if count else ("numeric", {})
        groups.setdefault(kind, []).append({"idx": index, "name": name, **values})
    return {"ml_attr": {"attrs": groups, "num_attrs": len(n_values)}}


def column_problems(
    schema: StructType, names: Sequence[str], kinds: Mapping[str, str] | None = None
) -> list[SchemaProblem]:
    """Return the columns that are missing, or of a type that no network takes.

    Parameters
    ----------
    schema : StructType
    names : sequence of str
    kinds : mapping of str to str, optional
        What the columns were in training: see ``kinds_of``. By default, this is the training.
    """
    problems = []
    for name in names:
        if missing := missing_problem(schema, name, "inputCols", "features"):
            problems.append(missing)
            continue
        kind, expected = _kind(schema[name].dataType), ""
        if kinds and kind != kinds.get(name, kind):
            expected = f"a {kinds[name]} column, as in training."
        elif not kind:
            expected = (
                "numbers, booleans, text or vectors. Convert it first, a time with unix_timestamp."
            )
        if expected:
            found = schema[name].dataType.simpleString()
            message = f"Column '{name}' has type {found}; expected {expected}"
            problems.append(SchemaProblem(name, "inputCols", message))
        elif kind == "vector" and not kinds and not feature_attributes(schema[name]).size:
            message = (
                f"Vector column '{name}' does not declare its size. Set it with VectorSizeHint, or "
                "use it as featuresCol."
            )
            problems.append(SchemaProblem(name, "inputCols", message))
    if FEATURES in schema.names:
        message = f"Column '{FEATURES}' exists, which features are assembled in. Rename it."
        problems.append(SchemaProblem(FEATURES, "inputCols", message))
    return problems


def kinds_of(schema: StructType, names: Sequence[str]) -> dict[str, str]:
    """Return what the columns hold: ``number``, ``text``, ``vector``; empty for another type."""
    return {name: _kind(schema[name].dataType) for name in names}


def find_columns(df: DataFrame, names: Sequence[str]) -> InputColumns:
    """Describe columns without ``column_problems``; values of text take a Spark job.

    Raises
    ------
    DataError
        If a text column has too many values.
    """
    schema = df.schema
    text = [name for name in names if _kind(schema[name].dataType) == "text"]
    found = _values(df, text)
    columns = []
    for name in names:
        kind = _kind(schema[name].dataType)
        if kind == "text":
            known = sorted(value for value in found[name] if value is not None)
            columns.append(InputColumn(name, kind, 1, len(found[name]), tuple(known)))
        elif kind == "vector":
            columns.append(InputColumn(name, kind, feature_attributes(schema[name]).size or 0))
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
