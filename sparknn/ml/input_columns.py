"""Assemble the columns of a table into features: numbers, booleans, categories, text, vectors.

The values of text columns are found when a fit begins, in one job; the model keeps them. Everything
is column expressions: no Python, no stage besides the estimator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, NumericType, StringType, StructType

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


@dataclass(frozen=True)
class InputColumn:
    """One column of a table.

    Parameters
    ----------
    name : str
    kind : str
        ``number``, ``category`` (indexed, by its metadata), ``text`` or ``vector``.
    size : int
        Features that it becomes: more than 1 for a vector.
    n_values : int
        Of a category or text, null included if training rows have it; 0 for numbers.
    values : tuple of str
        Of text, in the order of their codes. Null has the next code, any other value none.
    """

    name: str
    kind: str
    size: int = 1
    n_values: int = 0
    values: tuple[str, ...] = ()

    def expression(self, kind: DataType) -> Column:
        """Return the column's features as an array of doubles, for a column of this type."""
        column = F.col(quote_column(self.name))
        if self.kind == "vector":
            vector, missing = vector_to_array(column), F.array_repeat(F.lit(math.nan), self.size)
            message = (
                f"Vector column '{self.name}' has rows of another size than the {self.size} that "
                "its metadata declared in training. Assemble it again, with VectorAssembler."
            )
            return (
                F.when(column.isNull(), missing)
                .when(F.size(vector) == self.size, vector)
                .otherwise(F.raise_error(F.lit(message)).cast("array<double>"))
            )
        if self.kind != "text":
            return F.array(column.cast("double"))
        if not isinstance(kind, StringType):
            column = column.cast("string")
        codes = json.dumps({value: code for code, value in enumerate(self.values)})
        known = F.element_at(F.from_json(F.lit(codes), "map<string,double>"), column)
        of_null = float(len(self.values)) if self.n_values > len(self.values) else math.nan
        code = F.when(column.isNull(), F.lit(of_null)).otherwise(F.coalesce(known, F.lit(math.nan)))
        return F.array(code)


@dataclass(frozen=True)
class InputColumns:
    """The columns that features are assembled from, in order."""

    columns: tuple[InputColumn, ...]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [each.name for each in self.columns]

    @property
    def feature_names(self) -> list[str]:
        """The names of the features; elements of a vector have its name and their number."""
        return [
            each.name if each.size == 1 else f"{each.name}_{number}"
            for each in self.columns
            for number in range(each.size)
        ]

    def assemble(self, df: DataFrame) -> DataFrame:
        """Add the features as column ``FEATURES``, with names and categories as metadata.

        Raises
        ------
        SchemaError
            If columns are missing, or of another kind than in training.
        """
        kinds = {each.name: _BROAD.get(each.kind, each.kind) for each in self.columns}
        raise_all(column_problems(df.schema, self.names, kinds))
        parts = [each.expression(df.schema[each.name].dataType) for each in self.columns]
        return df.withColumn(FEATURES, F.concat(*parts).alias(FEATURES)).withMetadata(
            FEATURES, self._metadata()
        )

    def _metadata(self) -> dict[str, Any]:
        groups: dict[str, list[dict[str, Any]]] = {}
        n_values = [each.n_values for each in self.columns for _ in range(each.size)]
        for index, (name, count) in enumerate(zip(self.feature_names, n_values, strict=True)):
            kind, values = ("nominal", {"num_vals": count}) if count else ("numeric", {})
            groups.setdefault(kind, []).append({"idx": index, "name": name, **values})
        return {"ml_attr": {"attrs": groups, "num_attrs": len(n_values)}}

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values that ``from_json`` takes."""
        return [asdict(each) for each in self.columns]

    @classmethod
    def from_json(cls, saved: Sequence[Mapping[str, Any]]) -> InputColumns:
        """Return the columns whose ``to_json`` this is."""
        return cls(
            tuple(InputColumn(**{**each, "values": tuple(each["values"])}) for each in saved)
        )


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
