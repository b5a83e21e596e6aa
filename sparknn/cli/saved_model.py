"""Saved models and pipelines: load one, find its network and its label, and apply it to rows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.ml.feature import IndexToString, StringIndexerModel, VectorAssembler
from pyspark.ml.util import DefaultParamsReader
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructType

from sparknn.cli.errors import UsageError, raise_mistakes
from sparknn.cli.pipeline import free_name
from sparknn.cli.report import counted
from sparknn.engine.filesystem import literal
from sparknn.engine.sql import quote_column
from sparknn.engine.worker_errors import root_cause
from sparknn.ml.invalid_values import count_problems, missing_values
from sparknn.ml.model import NetworkModel
from sparknn.ml.persistence import ModelFormatError
from sparknn.ml.schema import SchemaError, missing_problem

log = logging.getLogger("sparknn.cli")


@dataclass
class SavedModel:
    """The stages of a model or pipeline, in order; pipelines within pipelines are flattened.

    ``network`` is the last one in the stages. ``indexer`` numbers the texts of its label, which
    are ``class_names`` in column ``text_label``, and maybe those of other columns.
    """

    stages: list[Any]
    network: Any
    indexer: Any = None
    text_label: str = ""
    class_names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any, path: str = "The pipeline") -> SavedModel:
        """Find the network and its label's indexer; ValueError if there is no network."""
        stages = list(_flat(model))
        network = next((s for s in reversed(stages) if isinstance(s, NetworkModel)), None)
        if network is None:
            raise ValueError(f"{path} holds a {type(model).__name__} without a neural network.")
        for stage in stages:
            if isinstance(stage, StringIndexerModel):
                made = _columns(stage, "outputCols", "outputCol")
                for text, number, names in zip(_read(stage), made, stage.labelsArray, strict=True):
                    if number == network.getLabelCol():
                        return cls(stages, network, stage, text, list(names))
        return cls(stages, network)

    @property
    def skips(self) -> bool:
        """Whether any stage leaves rows out."""
        judging = (stage for stage in self.stages if stage.hasParam("handleInvalid"))
        return any(stage.getOrDefault("handleInvalid") == "skip" for stage in judging)

    def set_invalid(self, invalid: str) -> None:
        """Replace what happens to rows with missing values, or with an unknown label."""
        self.network.setHandleInvalid(invalid)
        for stage in self.stages:
            is_indexer = stage is self.indexer and invalid != "keep"
            replaces = is_indexer or isinstance(stage, VectorAssembler)
            # A stage that passes them on goes on doing so: the network judges them.
            if replaces and stage.getHandleInvalid() != "keep":
                stage.setHandleInvalid(invalid)

    def transform(self, rows: DataFrame, *, labelled: bool, key: str) -> DataFrame:
        """Add the model's columns to rows, which ``key`` named; only ``labelled`` need a label."""
        text, hidden = self.text_label, free_name(rows.schema, "hiddenLabel")
        if text and not labelled:  # the indexer needs a label, and one that it knows
            rows = rows.withColumnRenamed(text, hidden).withColumn(text, F.lit(self.class_names[0]))
        for stage in self.stages:
            raise_mistakes(key, missing_columns(rows.schema, _read(stage)))
            try:
                rows = _apply(stage, rows)
            except SchemaError as error:
                raise UsageError(key, [problem.message for problem in error.problems]) from error
        label = self.network.getLabelCol()
        if text and not labelled:
            return rows.drop(text, label).withColumnRenamed(hidden, text)
        raise_mistakes(key, missing_columns(rows.schema, [label] if labelled else []))
        return rows

    def _replaces(self, rows: DataFrame, name: str) -> bool:
        """Whether the network takes a missing value of one of its ``inputCols``."""
        encoding = self.network.encoding
        fills = encoding is not None and encoding.fill is not None
        return fills or isinstance(rows.schema[name].dataType, StringType)

    @contextmanager
    def applied(
        self, rows: DataFrame, key: str, hint: str, *, labelled: bool
    ) -> Iterator[DataFrame]:
        """Yield rows with the model's columns for one Spark job, and log how many it left out.

        If it fails, the error names the columns of ``rows`` with missing values or unknown labels.
        """
        before, after, count = Observation(), Observation(), F.count(F.lit(1)).alias("n")
        watched = rows.observe(before, count) if self.skips else rows
        predicted = self.transform(watched, labelled=labelled, key=key)
        try:
            yield predicted.observe(after, count) if self.skips else predicted
        except UsageError:
            raise
        except Exception as error:
            names, labels = self.class_names, {self.text_label, self.network.getLabelCol()}
            used = {name for stage in self.stages for name in _read(stage)} | labels
            used -= {name for name in self.network.getInputCols() if self._replaces(rows, name)}
            used, names = (used, names) if labelled else (used - labels, [])
            refuses = self.network.getHandleInvalid() == "error"
            if refuses and (found := count_invalid(rows, used, self.text_label, names)):
                raise ValueError(f"{key}: {found}. {hint}") from error
            raise
        if self.skips and (left_out := before.get["n"] - after.get["n"]):
            label = ", or their label is unknown to the model" if labelled else ""
            of = f"{left_out:,} of {counted(before.get['n'], 'row')}"
            log.info("%s were left out: their values are null, NaN or infinite%s.", of, label)


def load(spark: SparkSession, path: str, key: str = "--model") -> SavedModel:
    """Load a model or pipeline; ``key`` named its path."""
    try:
        spark.read.text(literal(f"{path.rstrip('/')}/metadata"))
    except AnalysisException:
        raise UsageError(key, [f"there is no model at {path}."]) from None
    try:
        # pyspark 3.5 knows the context here, Spark Connect the session.
        model: Any = DefaultParamsReader.loadParamsInstance(path, getattr(spark, "_sc", spark))
    except ModelFormatError:  # it names the path and what is wrong
        raise
    except Exception as error:
        hint = "Install the packages that it was saved with; if it is incomplete, copy it again."
        reason = f"{type(error).__name__}: {root_cause(error)}"
        raise ValueError(f"{key}: the model at {path} cannot be read ({reason}). {hint}") from error
    return SavedModel.of(model, path)


def count_invalid(
    rows: DataFrame, columns: Collection[str], label: str = "", names: Sequence[str] = ()
) -> str:
    """Count values that are missing, and labels that are none of ``names``."""
    checks: dict[tuple[str, str, str], Column] = {}
    for name in [name for name in rows.columns if name in columns]:
        checks |= missing_values(rows, name)
    if names and label in rows.columns:
        known = f"column '{label}' is none of the labels that the model knows ({', '.join(names)})"
        checks[label, "unknown", known] = ~F.col(quote_column(label)).cast("string").isin(*names)
    return "; ".join(map(str, count_problems(rows, checks)))


def missing_columns(schema: StructType, names: Iterable[str]) -> list[str]:
    """Return a text for each name that is no column; what a dot means, Spark knows."""
    found = [missing_problem(schema, name, "", "needed") for name in names if "." not in name]
    return [problem.message for problem in found if problem]


def _flat(model: Any) -> Iterator[Any]:
    """Yield the stages of pipelines within pipelines and of the best of several models."""
    inner = [model.bestModel] if hasattr(model, "bestModel") else getattr(model, "stages", None)
    if inner is None:
        yield model
    for stage in inner or []:
        yield from _flat(stage)


def _columns(stage: Any, *params: str) -> list[str]:
    """Return the columns that the first of some Params that is defined names."""
    for name in params:
        if stage.hasParam(name) and stage.isDefined(name) and (value := stage.getOrDefault(name)):
            return [value] if isinstance(value, str) else list(value)
    return []


def _read(stage: Any) -> list[str]:
    """Return the columns that a stage reads, as far as its Params say so."""
    return _columns(stage, "inputCols", "inputCol", "featuresCol")


def _apply(stage: Any, rows: DataFrame) -> DataFrame:
    """Transform; an IndexToString gives null for a prediction that is null, at which it fails."""
    if not (isinstance(stage, IndexToString) and stage.isSet("labels")):
        return stage.transform(rows)
    names = F.array(*map(F.lit, stage.getLabels()))
    number = F.col(quote_column(stage.getInputCol())).cast("int")
    # get gives null where there is no such class; names[number] would be an error.
    return rows.withColumn(stage.getOutputCol(), F.get(names, number))
