"""Where the work runs. Knows shards and rounds, not estimators."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparknn.engine.interface import DataSpec
    from sparknn.engine.rdd import RddEngine


def open_engine(df: DataFrame, spec: DataSpec, aggregation_depth: int = 2) -> RddEngine:
    """Take rows in and be ready to train on them; use it in a ``with`` block.

    Raises
    ------
    DataError
        If the rows cannot be trained on.
    """
    from sparknn.engine.rdd import RddEngine

    return RddEngine(df, spec, aggregation_depth)
