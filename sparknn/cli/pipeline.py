"""The columns that a network reads, and the stages that index a text label and map it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.ml.feature import IndexToString, StringIndexer, StringIndexerModel
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DoubleType, StringType, StructField, StructType

from sparknn.cli.keys import PARAM_KEYS
from sparknn.ml.schema import SchemaProblem, output_problems

_PREDICTED_LABEL = "predictedLabel"


@dataclass(frozen=True)
class Columns:
    """The columns that a network reads.

    ``features`` are ``inputCols``, unless a single one holds vectors or arrays: ``ready``. A text
    ``label`` is numbered in column ``index``: by ``names``, if an initial network knows them, or
    sorted. ``index`` is empty if the label is numbers.
    """

    features: tuple[str, ...]
    label: str
    ready: bool = False
    index: str = ""
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, schema: StructType, features: Sequence[str], label: str, *, classifies: bool
    ) -> Columns:
        """Find out from the rows' schema what the named columns are."""
        kinds = {item.name: item.dataType for item in schema.fields}
        ready = len(features) == 1 and isinstance(kinds.get(features[0]), VectorUDT | ArrayType)
        is_text = classifies and isinstance(kinds.get(label), StringType)
        index = free_name(schema, "labelIndex") if is_text else ""
        return cls(tuple(features), label, ready, index)

    def params(self) -> dict[str, Any]:
        """Return the Params of the estimator that name the columns."""
        read = {"featuresCol": self.features[0]} if self.ready else {"inputCols": [*self.features]}
        return {**read, "labelCol": self.index or self.label}

    def index_label(self, rows: DataFrame, invalid: str = "error") -> tuple[Any, DataFrame]:
        """Return the indexer of a text label, None for another, and the rows with its numbers."""
        if not self.index:
            return None, rows
        indexer: Any
        if self.names:
            names = list(self.names)
            indexer = StringIndexerModel.from_labels(names, self.label, self.index, invalid)
        else:
            indexer = StringIndexer(inputCol=self.label, outputCol=self.index)
            indexer = indexer.setStringOrderType("alphabetAsc").setHandleInvalid(invalid).fit(rows)
        return indexer, indexer.transform(rows)


def column_mistakes(
    schema: StructType,
    columns: Columns,
    estimator: Any,
    test: tuple[str, Mapping[str, str]] | None = None,
    *,
    case_matters: bool,
) -> list[str]:
    """Return the columns that are missing, of the wrong type, or in the way.

    ``test`` is the key of test rows, which need no weights, and the kinds of their features. A
    mistake in training rows is named by the key that named the column.
    """
    checked = estimator.copy()._set(**columns.params())
    key, kinds = test or ("", None)
    if key:
        checked.clear(checked.weightCol)
        checked.clear(checked.validationIndicatorCol)
    problems: list[SchemaProblem] = []
    if columns.index and columns.label in schema.names:  # as if it was indexed already
        schema = StructType([*schema.fields, StructField(columns.index, DoubleType())])
        problems += output_problems(schema, [_PREDICTED_LABEL], case_matters)
    elif columns.index:
        checked._set(labelCol=columns.label)
    problems += checked._column_problems(schema, case_matters, kinds)
    if columns.label in columns.features:
        message = f"Column '{columns.label}' is the label."
        problems.append(SchemaProblem(columns.label, "inputCols", message))
    outputs = ("predictionCol", "probabilityCol", "rawPredictionCol")
    given = {estimator.getOrDefault(n): PARAM_KEYS[n] for n in outputs if estimator.hasParam(n)}
    keys = {_PREDICTED_LABEL: PARAM_KEYS["labelCol"]} | given
    return [
        f"{key or PARAM_KEYS.get(each.param) or keys[each.column]}: {each.message}"
        for each in problems
    ]


def fit(estimator: Any, columns: Columns, rows: DataFrame) -> Any:
    """Fit the estimator; return its model, in a ``PipelineModel`` if its label is text."""
    estimator._set(**columns.params())
    # 'keep' is for features: a missing label is not a class.
    skips = estimator.getHandleInvalid() == "skip"
    indexer, rows = columns.index_label(rows, "skip" if skips else "error")
    model = estimator.fit(rows)
    if indexer is None:
        return model
    names, prediction = list(indexer.labels), estimator.getPredictionCol()
    back = IndexToString(inputCol=prediction, outputCol=_PREDICTED_LABEL, labels=names)
    return PipelineModel([indexer, model, back])


def free_name(schema: StructType, name: str) -> str:
    """Return ``name`` with underscores until no column is called so, in whatever case."""
    taken = {each.lower() for each in schema.names}
    while name.lower() in taken:
        name += "_"
    return name
