"""Add a model's columns to a DataFrame, with column expressions only: no RDD, no JVM objects.
Only a large network is broadcast, by ``CachedBroadcast``, where Spark has broadcasts.

The features are sent to Python once, in arrow's layout; all outputs return in one struct.
CPU seconds, Spark's and Python's, for 10,000 cached vectors of 784 and a network 784-300-10:

    ============================================  ===========  =============
    way                                           pyspark 4.3  pyspark 3.5
    ============================================  ===========  =============
    vectors' fields, values as float, arrow_udf   0.62         (not there)
    the same, pandas_udf                          0.74         0.93
    vectors as a struct of doubles, arrow_udf     0.80
    fields, mapInArrow, no other column carried   0.58         0.68
    fields to Python and nothing computed         0.52         0.49
    ============================================  ===========  =============

``mapInArrow`` would send every other column to Python and back, vectors included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    IntegerType,
    ShortType,
    UserDefinedType,
)

from sparknn.core.predictor import LocalPredictor
from sparknn.engine.broadcast import CachedBroadcast
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.sql import is_connect, quote_column
from sparknn.ml.attributes import feature_attributes
from sparknn.ml.predict_udf import Scorer, score, score_pandas
from sparknn.ml.schema import (
    SchemaError,
    SchemaProblem,
    ambiguous_problems,
    case_matters,
    feature_problem,
    output_problems,
    raise_all,
)

_SCORES = "__sparknn_scores"


@dataclass(frozen=True)
class Outputs:
    """Names of the columns to add; an empty name omits the column."""

    prediction: str
    probability: str = ""
    raw: str = ""
    contributions: str = ""

    def named(self) -> dict[str, str]:
        """Map outputs to their columns, in the order in which Spark's models add them."""
        every = {
            "raw": self.raw,
            "probability": self.probability,
            "prediction": self.prediction,
            "contributions": self.contributions,
        }
        return {output: name for output, name in every.items() if name}


def append_predictions(
    df: DataFrame,
    predictor: LocalPredictor,
    broadcast: CachedBroadcast[LocalPredictor],
    *,
    features: str,
    outputs: Outputs,
    handle_invalid: str,
    names: list[str] | None = None,
) -> DataFrame:
    """Add a model's columns; lazy, like every transformation.

    Parameters
    ----------
    df : DataFrame
    predictor : LocalPredictor
    broadcast : CachedBroadcast
        Of this network, for any thresholds.
    features : str
        A column of vectors, dense or sparse, or of arrays of any numeric type.
    outputs : Outputs
    handle_invalid : str
        ``error``, ``skip`` or ``keep``: see ``NetworkModel``.
    names : list of str, optional
        Names of the features in training.

    Raises
    ------
    SchemaError
        If the features are missing, of another type, declared with another number of features, or
        named in another order; or if an output column exists.
    """
    named = outputs.named()
    check_schema(df, features, list(named.values()), predictor.n_features, names)
    if not named:
        return df
    bare = replace(predictor, thresholds=None)
    scorer = Scorer(
        broadcast.get(bare, predictor.theta.nbytes, df.sparkSession),
        predictor.thresholds,
        features,
        tuple(named),
        nulls=handle_invalid != "error",
    )
    scoring = _scoring_udf(scorer, _ddl(predictor, tuple(named)))
    rows, columns = _row_by_row(df, features), _feature_columns(df, features, predictor)
    nulls, skips = handle_invalid == "keep", handle_invalid == "skip"
    if not (skips or is_connect(df.sparkSession)):
        # Spark evaluates the same call once, although every column has it.
        return rows.select("*", *_output_columns(scoring(*columns), named, predictor, nulls))
    # Spark Connect would send the network with each column.
    name, existing = _SCORES, {column.lower() for column in df.columns}
    while name in existing:
        name += "_"
    if skips:
        # Spark would push the filter below the prediction, and predict twice.
        scoring = scoring.asNondeterministic()
    scored = rows.withColumn(name, scoring(*columns))
    if skips:
        scored = scored.where(F.col(name)[next(iter(named))].isNotNull())
    return scored.select("*", *_output_columns(F.col(name), named, predictor, nulls)).drop(name)


def _output_columns(
    scores: Column, named: dict[str, str], predictor: LocalPredictor, nulls: bool
) -> list[Column]:
    return [
        _output(scores[output], output, predictor, nulls).alias(
            name, metadata=_metadata(output, predictor)
        )
        for output, name in named.items()
    ]


def check_schema(
    df: DataFrame,
    features: str,
    outputs: list[str],
    n_features: int,
    names: list[str] | None = None,
) -> None:
    """Check what the schema shows before any job runs.

    Raises
    ------
    SchemaError
    """
    schema = df.schema
    case = case_matters(df.sparkSession)
    raise_all(
        [
            *ambiguous_problems(schema, [("featuresCol", features)], case),
            feature_problem(schema, features),
            *output_problems(schema, outputs, case),
        ]
    )
    declared, problem = feature_attributes(schema[features]), ""
    if declared.size is not None and declared.size != n_features:
        problem = f"has {declared.size} features by its metadata; the model was trained"
        problem += f" on {n_features}"
    elif names and sorted(found := declared.name_list or []) == sorted(names) and found != names:
        first = next(i for i in range(n_features) if found[i] != names[i])
        problem = f"has its features in another order than in training: feature {first} is "
        problem += f"'{found[first]}' instead of '{names[first]}'"
    if problem:
        message = f"Column '{features}' {problem}. Assemble the same columns, in the same order, "
        message += "as for training."
        raise SchemaError(SchemaProblem(features, "featuresCol", message))


def _feature_columns(df: DataFrame, features: str, predictor: LocalPredictor) -> list[Column]:
    """Return the columns to send to Python; numbers are of 8 bytes only if that is needed."""
    numbers = "array<float>" if predictor.input_offset is None else "array<double>"
    column = F.col(quote_column(features))
    kind = df.schema[features].dataType
    if isinstance(kind, VectorUDT):
        vector = F.unwrap_udt(column)
        values = vector["values"].cast(numbers)
        return [values, vector["type"], vector["size"], vector["indices"]]
    assert isinstance(kind, ArrayType)
    if isinstance(kind.elementType, ByteType | ShortType | IntegerType):
        return [column]
    return [column.cast(numbers)]


def _row_by_row(df: DataFrame, features: str) -> DataFrame:
    """Put rows with vectors behind a filter that keeps all of them.

    Spark 4.3 passes columnar batches from a parquet scan to Python, and fails if a column holds
    vectors (UNSUPPORTED_DATATYPE). A filter converts them to rows, and blocks no other filter.
    Spark 3 does not need it, and would compute the features twice.
    """
    has_vectors = any(isinstance(item.dataType, UserDefinedType) for item in df.schema)
    if not has_vectors or df.sparkSession.version.startswith("3."):
        return df
    column = F.col(quote_column(features))
    if isinstance(df.schema[features].dataType, VectorUDT):
        column = F.unwrap_udt(column)["values"]
    return df.where(F.coalesce(F.size(column), F.lit(-1)) >= -1)


def _ddl(predictor: LocalPredictor, outputs: tuple[str, ...]) -> str:
    several = not predictor.classifies and predictor.n_outputs > 1
    kinds = {
        "prediction": "array<double>" if several else "double",
        "contributions": "array<array<double>>",
    }
    return ", ".join(f"{name} {kinds.get(name, 'array<double>')}" for name in outputs)


def _scoring_udf(scorer: Scorer, ddl: str) -> Any:
    """Return a column function whose result is a struct; it uses arrow arrays on Spark 4.1+."""
    if hasattr(F, "arrow_udf"):

        def over_arrow(*columns: pa.Array) -> pa.Array:
            freeze_gc()
            return score(scorer, *columns)

        return F.arrow_udf(over_arrow, ddl)

    def over_pandas(*columns: pd.Series) -> pd.DataFrame:
        freeze_gc()
        return score_pandas(scorer, *columns)

    return F.pandas_udf(over_pandas, ddl)  # type: ignore[attr-defined]


def _output(value: Column, output: str, predictor: LocalPredictor, nulls: bool) -> Column:
    if output == "contributions":
        return value
    if output == "prediction" and (predictor.classifies or predictor.n_outputs == 1):
        return value
    # array_to_vector does not accept nulls.
    return F.when(value.isNotNull(), array_to_vector(value)) if nulls else array_to_vector(value)


def _metadata(output: str, predictor: LocalPredictor) -> dict[str, Any]:
    """Return the metadata that Spark's classifiers give their columns (``ml_attr``)."""
    if not predictor.classifies or output == "contributions":
        return {}
    if output == "prediction":
        return {"ml_attr": {"type": "nominal", "num_vals": predictor.n_outputs}}
    return {"ml_attr": {"num_attrs": predictor.n_outputs}}
