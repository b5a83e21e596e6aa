"""Saved models and pipelines: load one, find its network and its label, and apply it to rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.ml.feature import IndexToString, StringIndexerModel, VectorAssembler
from pyspark.ml.util import DefaultParamsReader
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn.cli.errors import UsageError, raise_mistakes
from sparknn.engine.filesystem import literal
from sparknn.engine.sql import quote_column
from sparknn.engine.worker_errors import root_cause
from sparknn.ml.model import NetworkModel
from sparknn.ml.persistence import ModelFormatError
from sparknn.ml.schema import SchemaError
from sparknn.ml.validators import did_you_mean


class NoModelError(ValueError):
    """What is at a path is no model that can be used."""


@dataclass
class SavedModel:
    """The stages of a model or pipeline, in order; pipelines within pipelines are flattened.

    Parameters
    ----------
    stages : list of Transformer
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
        found = cls(stages, network)
        for index, stage in enumerate(stages):
            if isinstance(stage, StringIndexerModel):
                *others, found.label_indexer = _split(stage, network.getLabelCol())
                if found.label_indexer is not None:
                    stages[index : index + 1] = [*others, found.label_indexer]
                    break
        return found

    @property
    def class_names(self) -> list[str]:
        """The texts that the numbers of the label stand for; empty if they are just numbers."""
        return list(self.label_indexer.labels) if self.label_indexer is not None else []

    @property
    def skips(self) -> bool:
        """Whether any stage leaves rows out."""
        return any(
            stage.hasParam("handleInvalid") and stage.getOrDefault("handleInvalid") == "skip"
            for stage in self.stages
        )

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

    def transform(self, rows: DataFrame, *, labelled: bool, key: str = "--data") -> DataFrame:
        """Add the model's columns to rows.

        Parameters
        ----------
        labelled : bool
            Whether the label is needed. If not, its indexer is left out: it would stop at labels
            that it does not know, or leave their rows out.
        key : str
            What named the rows, for messages.

        Raises
        ------
        UsageError
            If the rows lack a column, or have one that is in the way.
        """
        own, label = rows.columns, self.network.getLabelCol()
        if labelled and self.label_indexer is not None:
            _check_there([self.label_indexer.getInputCol()], rows, own, key, "label ")
        for stage in self.stages:
            if stage is self.label_indexer and not labelled:
                continue
            if isinstance(stage, VectorAssembler):
                _check_there(stage.getInputCols(), rows, own, key)
            try:
                rows = _apply(stage, rows)
            except SchemaError as error:
                messages = [problem.message for problem in error.problems]
                raise UsageError(key, messages) from error
        if labelled:
            _check_there([label], rows, own, key, "label ")
        return rows

    def inputs(self, rows: DataFrame, *, labelled: bool) -> list[str]:
        """Return the columns of ``rows`` that the model reads, the label if it is needed."""
        read = [self.network.getLabelCol()] * labelled
        for stage in self.stages:
            if stage is self.label_indexer and not labelled:
                continue
            for name in ("inputCols", "inputCol", "featuresCol"):
                if stage.hasParam(name) and stage.isDefined(name):
                    value = stage.getOrDefault(name)
                    read += [value] if isinstance(value, str) else value
        return [name for name in rows.columns if name in read]


def load(spark: SparkSession, path: str, key: str = "--model") -> SavedModel:
    """Load a model or pipeline.

    Parameters
    ----------
    key : str
        What named the path, for messages.

    Raises
    ------
    UsageError
        If there is none at the path.
    NoModelError
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
    except (ImportError, AttributeError) as error:
        raise NoModelError(
            f"{key}: {path} needs a class that is not there ({error}). Install the package that it "
            f"was saved with."
        ) from error
    except Exception as error:
        # Spark reports metadata that are cut off in as many ways as there are places to cut.
        raise NoModelError(
            f"{key}: the model at {path} cannot be read ({type(error).__name__}: "
            f"{root_cause(error)}). The directory is incomplete or was changed; copy it again, or "
            f"save the model again."
        ) from error
    found = SavedModel.of(model)
    if found is None:
        raise NoModelError(f"{path} holds a {type(model).__name__} without a neural network in it.")
    return found


def _flat(model: Any) -> Iterator[Any]:
    """Yield the stages of pipelines within pipelines and of the best of several models."""
    if hasattr(model, "bestModel"):
        yield from _flat(model.bestModel)
    elif hasattr(model, "stages"):
        for stage in model.stages:
            yield from _flat(stage)
    else:
        yield model


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
    arrays, sources, made = map(list, zip(*others, strict=True))
    return [
        StringIndexerModel.from_arrays_of_labels(arrays, sources, made, invalid),
        numbering,
    ]


def _apply(stage: Any, rows: DataFrame) -> DataFrame:
    """Transform; an IndexToString gives null for a prediction that is null, at which it fails."""
    if not (isinstance(stage, IndexToString) and stage.isSet("labels")):
        return stage.transform(rows)
    names = F.array(*map(F.lit, stage.getLabels()))
    number = F.col(quote_column(stage.getInputCol())).cast("int")
    # get gives null where there is no such class; names[number] would be an error.
    return rows.withColumn(stage.getOutputCol(), F.get(names, number))


def _check_there(
    names: list[str], rows: DataFrame, own: list[str], key: str, kind: str = ""
) -> None:
    """Raise UsageError for columns that are missing, before Spark does."""
    # Whether case matters, and what a dot means, Spark knows.
    there = {name.lower() for name in rows.columns}
    listed = f"; there are {', '.join(own)}."
    raise_mistakes(
        key,
        [
            f"there is no {kind}column '{name}'{did_you_mean(name, own) or listed}"
            for name in names
            if name.lower() not in there and "." not in name
        ],
    )
