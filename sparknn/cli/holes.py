"""Which of the data's own columns lack values: asked only once a command has failed over them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sparknn.engine.sql import quote_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

_MOST = 3.4028235e38  # of float32, which networks compute in


def explained(error: Exception, rows: DataFrame, names: Iterable[str]) -> str:
    """What an error over missing values is about, in the columns that the user knows.

    Stages make other columns of them, which is where the library and Spark find what is missing.

    Parameters
    ----------
    rows : DataFrame
        Before any stage.
    names : iterable of str
        The columns of ``rows`` that values may be missing in.

    Returns
    -------
    str
        Empty if the error is about something else.
    """
    text = str(error)
    if "handleInvalid" not in text:
        return ""
    found = _holes(rows, dict.fromkeys(name for name in names if name in rows.columns))
    if found:
        # An intake counts other faults besides.
        found += re.findall(r"column '[^']+' is (?!null|NaN)[^;]+? in \d+ of \d+ rows", text)
    return "; ".join(found)


def _holes(rows: DataFrame, names: Iterable[str]) -> list[str]:
    from pyspark.sql import functions as F

    kinds = {name: rows.schema[name].dataType for name in names}
    counts = [
        F.count(
            F.when(
                F.col(quote_column(name)).isNull() | _unusable(F.col(quote_column(name)), kind), 1
            )
        )
        for name, kind in kinds.items()
    ]
    (n_rows, *n_holes) = rows.agg(F.count(F.lit(1)), *counts).head() or (0,)
    return [
        f"column {name!r} is {_fault(kinds[name])} in {count:,} of {n_rows:,} rows"
        for name, count in zip(kinds, n_holes, strict=True)
        if count
    ]


def _fault(kind: DataType) -> str:
    return "null" if kind.typeName() == "string" else "null, NaN or infinite"


def _unusable(value: Column, kind: DataType) -> Column:
    """Whether a value that is there is no finite number, or holds one that is not."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, NumericType

    def wrong(number: Column) -> Column:
        number = number.cast("double")
        return number.isNull() | F.isnan(number) | (F.abs(number) > _MOST)

    if isinstance(kind, VectorUDT):
        return F.exists(vector_to_array(value), wrong)
    if isinstance(kind, ArrayType):
        return F.exists(value, wrong)
    return wrong(value) if isinstance(kind, NumericType) else F.lit(False)
