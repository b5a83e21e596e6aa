"""Saved models and pipelines: load one, find its network and its label, and apply it to rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.ml.feature import IndexToString, StringIndexerModel, VectorAssembler
from pyspark.ml.util import DefaultParamsReader
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn.cli.errors import UsageError, raise_mistakes
from sparknn.cli.invalid_values import count_invalid
from sparknn.engine.filesystem import literal
from sparknn.engine.sql import quote_column
from sparknn.engine.worker_errors import root_cause
from sparknn.ml.model import NetworkModel
from sparknn.ml.persistence import ModelFormatError
from sparknn.ml.schema import SchemaError
from sparknn.ml.validators import did_you_mean


@dataclass
class SavedModel:
    """The stages of a model or pipeline, in order; pipelines within pipelines are flattened.

    Parameters
    ----------
    network : NetworkModel
        The last one in the stages.
    label_indexer : StringIndexerModel, optional
        The stage that numbers the network's label, and nothing else.
    """

    stages: list[Any]
    network: Any
    label_indexer: Any = None

    @classmethod
    def of(cls, model: Any) -> SavedModel | None:
        """Find the network and its label's indexer; None if there is no network."""
        stages = list(_flat(model))
        network = next((s for s in reversed(stages) if isinstance(s, NetworkModel)), None)
        if network is None:
            return None
        for index, stage in enumerate(stages):
            if isinstance(stage, StringIndexerModel):
                *others, indexer = _split(stage, network.getLabelCol())
                if indexer is not None:
                    stages[index : index + 1] = [*others, indexer]
                    return cls(stages, network, indexer)
        return cls(stages, network)

    @property
    def class_names(self) -> list[str]:
        """The texts that the numbers of the label stand for; empty if they are just numbers."""
        return list(self.label_indexer.labels) if self.label_indexer is not None else []

    @property
    def skips(self) -> bool:
        """Whether any stage leaves rows out."""
        stages = [stage for stage in self.stages if stage.hasParam("handleInvalid")]
        return any(stage.getOrDefault("handleInvalid") == "skip" for stage in stages)

    def set_invalid(self, invalid: str | None) -> None:
        """Replace what happens to rows with missing values, or with an unknown label.

        An assembler that passes missing values on as NaN goes on doing so: the network judges them.
        """
        if invalid is None:
            return
        for stage in self.stages:
            if isinstance(stage, VectorAssembler) and stage.getHandleInvalid() != "keep":
                stage.setHandleInvalid(invalid)
        if self.label_indexer is not None and invalid != "keep":
            self.label_indexer.setHandleInvalid(invalid)
        self.network.setHandleInvalid(invalid)

    def _used(self, labelled: bool) -> list[Any]:
        """The stages; without the label's indexer, which would stop at unknown labels."""
        return [stage for stage in self.stages if labelled or stage is not self.label_indexer]

    def transform(self, rows: DataFrame, *, labelled: bool, key: str = "--data") -> DataFrame:
        """Add the model's columns to rows; the label is needed only if it is asked for.

        Raises
        ------
        UsageError
            If the rows lack a column, or have one that is in the way; ``key`` names them.
        """
        own = rows.columns
        for stage in self._used(labelled):
            needed = stage.getInputCols() if isinstance(stage, VectorAssembler) else []
            label = [stage.getInputCol()] if stage is self.label_indexer else []
            mistakes = missing_columns(needed, rows.columns, own)
            raise_mistakes(key, mistakes + missing_columns(label, rows.columns, own, "label "))
            try:
                rows = _apply(stage, rows)
            except SchemaError as error:
                raise UsageError(key, [problem.message for problem in error.problems]) from error
        label = [self.network.getLabelCol()] * labelled
        raise_mistakes(key, missing_columns(label, rows.columns, own, "label "))
        return rows

    def inputs(self, rows: DataFrame, *, labelled: bool) -> list[str]:
        """Return the columns of ``rows`` that the model reads."""
        read = [self.network.getLabelCol()] * labelled
        for stage in self._used(labelled):
            for name in ("inputCols", "inputCol", "featuresCol"):
                if stage.hasParam(name) and stage.isDefined(name):
                    value = stage.getOrDefault(name)
                    read += [value] if isinstance(value, str) else value
        return [name for name in rows.columns if name in read]

    @contextmanager
    def explaining(self, rows: DataFrame, key: str, hint: str, *, labelled: bool) -> Iterator[None]:
        """Say which columns of ``rows`` lack values, or have unknown labels, if a job fails."""
        try:
            yield
        except Exception as error:
            names = self.class_names if labelled else []
            text = self.label_indexer.getInputCol() if names else ""
            used = self.inputs(rows, labelled=labelled)
            refuses = self.network.getHandleInvalid() == "error"
            if refuses and (found := count_invalid(rows, used, text, names)):
                raise ValueError(f"{key}: {'; '.join(found)}. {hint}") from error
            raise


def load(spark: SparkSession, path: str, key: str = "--model") -> SavedModel:
    """Load a model or pipeline; ``key`` named its path.

    Raises
    ------
    UsageError
        If there is none at the path.
    ValueError
        If what is there holds no network, or is damaged.
    """
    try:
        spark.read.text(literal(f"{path.rstrip('/')}/metadata"))
    except AnalysisException:
        advice = "Give the folder that a model was saved to."
        raise UsageError(key, [f"there is no model at {path}. {advice}"]) from None
    # pyspark 3.5 knows the context here, Spark Connect the session.
    context = getattr(spark, "_sc", spark)
    try:
        model: Any = DefaultParamsReader.loadParamsInstance(path, context)
    except ModelFormatError:  # it names the path and what is wrong
        raise
    except Exception as error:
        # Spark reports metadata that are cut off in as many ways as there are places to cut.
        raise ValueError(
            f"{key}: the model at {path} cannot be read ({type(error).__name__}: "
            f"{root_cause(error)}). Install the packages that it was saved with; if the directory "
            f"is incomplete or was changed, copy it again."
        ) from error
    found = SavedModel.of(model)
    if found is None:
        raise ValueError(f"{path} holds a {type(model).__name__} without a neural network in it.")
    return found


def missing_columns(
    names: Iterable[str], there: Sequence[str], own: Sequence[str] = (), kind: str = ""
) -> list[str]:
    """Say which names are not among the columns that are there; suggest one of the rows' own."""
    # Whether case matters, and what a dot means, Spark knows.
    lower = {name.lower() for name in there}
    known = own or there
    listed = f"; there are {', '.join(known)}."
    return [
        f"there is no {kind}column '{name}'{did_you_mean(name, known) or listed}"
        for name in names
        if name.lower() not in lower and "." not in name
    ]


def _flat(model: Any) -> Iterator[Any]:
    """Yield the stages of pipelines within pipelines and of the best of several models."""
    inner = [model.bestModel] if hasattr(model, "bestModel") else getattr(model, "stages", None)
    if inner is None:
        yield model
    for stage in inner or []:
        yield from _flat(stage)


def _split(indexer: Any, label: str) -> list[Any]:
    """Split an indexer into one of all other columns, if any, and one of the label, or None."""
    several = indexer.isSet("outputCols")
    sources = indexer.getInputCols() if several else [indexer.getInputCol()]
    made = indexer.getOutputCols() if several else [indexer.getOutputCol()]
    columns = list(zip(map(list, indexer.labelsArray), sources, made, strict=True))
    own = [column for column in columns if column[2] == label]
    others = [column for column in columns if column[2] != label]
    if not own:
        return [indexer, None]
    invalid = indexer.getHandleInvalid()
    numbering = StringIndexerModel.from_labels(*own[0], invalid)
    if not others:
        return [numbering]
    texts, read, written = map(list, zip(*others, strict=True))
    return [StringIndexerModel.from_arrays_of_labels(texts, read, written, invalid), numbering]


def _apply(stage: Any, rows: DataFrame) -> DataFrame:
    """Transform; an IndexToString gives null for a prediction that is null, at which it fails."""
    if not (isinstance(stage, IndexToString) and stage.isSet("labels")):
        return stage.transform(rows)
    names = F.array(*map(F.lit, stage.getLabels()))
    number = F.col(quote_column(stage.getInputCol())).cast("int")
    # get gives null where there is no such class; names[number] would be an error.
    return rows.withColumn(stage.getOutputCol(), F.get(names, number))
