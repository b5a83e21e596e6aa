"""Which of the data's own columns hold values that stop a model: counted once a command failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, NumericType

from sparknn.engine.sql import quote_column

_LARGEST = 3.4028235e38  # of float32, which networks compute in


def count_invalid(
    rows: DataFrame, columns: Iterable[str], label: str = "", names: Sequence[str] = ()
) -> list[str]:
    """Count values that are missing, and labels that are none of ``names``, in one Spark job.

    ``rows`` are as they were before any stage. Returns a text for each column that has some.
    """
    checks: dict[str, Column] = {}
    for name in dict.fromkeys(name for name in columns if name in rows.columns):
        kind, value = rows.schema[name].dataType, F.col(quote_column(name))
        what = "null" if kind.typeName() == "string" else "null, NaN or infinite"
        checks[f"column '{name}' is {what}"] = value.isNull() | _is_unusable(value, kind)
    if names and label in rows.columns:
        known = f"column '{label}' is none of the labels that the model knows ({', '.join(names)})"
        value = F.col(quote_column(label))
        checks[known] = value.isNotNull() & ~value.cast("string").isin(*names)
    counts = [F.count(F.when(check, 1)) for check in checks.values()]
    n_rows, *n_invalid = rows.agg(F.count(F.lit(1)), *counts).head() or (0,)
    return [
        f"{text} in {count:,} of {n_rows:,} rows"
        for text, count in zip(checks, n_invalid, strict=True)
        if count
    ]


def _is_unusable(value: Column, kind: DataType) -> Column:
    """Whether a value that is there is no finite number, or holds one that is not."""

    def is_wrong(number: Column) -> Column:
        number = number.cast("double")
        return number.isNull() | F.isnan(number) | (F.abs(number) > _LARGEST)

    if isinstance(kind, VectorUDT):
        return F.exists(vector_to_array(value), is_wrong)
    if isinstance(kind, ArrayType):
        return F.exists(value, is_wrong)
    return is_wrong(value) if isinstance(kind, NumericType) else F.lit(False)
