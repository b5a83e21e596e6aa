"""Count the values of columns that no network takes: errors then name the columns of the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, NumericType, StringType

from sparknn.core.columns import InputColumns
from sparknn.engine.interface import ColumnProblem, DataError, DataSpec
from sparknn.engine.sql import quote_column
from sparknn.ml.input_columns import FEATURES

_LARGEST = 3.4028235e38  # of float32, which networks compute in

#: By column, reason and message of a ``ColumnProblem``: which rows have it.
Checks = Mapping[tuple[str, str, str], Column]


def count_problems(df: DataFrame, checks: Checks) -> list[ColumnProblem]:
    """Return the problems that some rows have; one Spark job."""
    counts = [F.count_if(check) for check in checks.values()]
    n_rows, *found = df.agg(F.count(F.lit(1)), *counts).head() or (0,)
    pairs = zip(checks, found, strict=True)
    return [ColumnProblem(*problem, count, n_rows) for problem, count in pairs if count]


def missing_values(df: DataFrame, name: str, *, nulls: bool = True) -> Checks:
    """Check for null, and for numbers that are not finite; without ``nulls`` for infinite ones."""
    kind, value = df.schema[name].dataType, F.col(quote_column(name))

    def is_wrong(number: Column) -> Column:
        number = number.cast("double")
        infinite = ~F.isnan(number) & (F.abs(number) > _LARGEST)
        return number.isNull() | F.isnan(number) | infinite if nulls else infinite

    what, wrong = "null", value.isNull()
    if isinstance(kind, NumericType | VectorUDT | ArrayType):
        what = "null, NaN or infinite" if nulls else "infinite"
        wrong = is_wrong(value) if isinstance(kind, NumericType) else wrong
    if isinstance(kind, VectorUDT | ArrayType):
        array = vector_to_array(value) if isinstance(kind, VectorUDT) else value
        wrong = F.coalesce(F.exists(array, is_wrong), F.lit(nulls))
    elif not (nulls or isinstance(kind, NumericType)):
        return {}
    return {(name, "missing", f"column '{name}' is {what}"): wrong}


@contextmanager
def named_columns(df: DataFrame, spec: DataSpec, inputs: InputColumns | None) -> Iterator[None]:
    """Name the columns of ``inputs`` in a DataError about the features made of them."""
    try:
        yield
    except DataError as error:
        reasons = {each.reason for each in error.problems if each.column == FEATURES}
        checks: dict[tuple[str, str, str], Column] = {}
        for each in inputs.columns if inputs is not None else ():
            name, value = each.name, F.col(quote_column(each.name)).cast("double")
            if "missing" in reasons and not isinstance(df.schema[name].dataType, StringType):
                checks |= missing_values(df, name, nulls=not spec.keep_missing)
            if "category" in reasons and each.kind == "category":
                message = f"column '{name}' is none of its {each.n_values} categories"
                is_known = value.between(0, each.n_values - 1) & (value == F.floor(value))
                checks[name, "category", message] = ~is_known & ~F.isnan(value)
        found = count_problems(df, checks) if checks else []
        if not found:
            raise
        named = {problem.reason for problem in found}
        others = [p for p in error.problems if p.column != FEATURES or p.reason not in named]
        raise DataError.of_columns([*found, *others], error.hint) from error
