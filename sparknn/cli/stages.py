"""The stages around a network: columns assembled into features, text labels indexed and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparknn.cli.columns import PREDICTED_LABEL

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparknn.cli.columns import Columns
    from sparknn.cli.estimator import Estimator
    from sparknn.ml.model import NetworkModel

log = logging.getLogger("sparknn.cli")


def fit(estimator: Estimator, columns: Columns, rows: DataFrame) -> Any:
    """Fit the estimator and the stages around it.

    Returns
    -------
    Transformer
        The network's model itself if its columns need nothing, otherwise a ``PipelineModel``.
    """
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import IndexToString

    before = around(columns, estimator.getOrDefault("handleInvalid"))
    if not before:
        return estimator.fit(rows)
    fitted = Pipeline(stages=[*before, estimator]).fit(rows)
    if not columns.indexed:
        return fitted
    names = IndexToString(
        inputCol=estimator.getOrDefault("predictionCol"),
        outputCol=PREDICTED_LABEL,
        labels=class_names(fitted, columns.label),
    )
    return PipelineModel([*fitted.stages, names])


def around(columns: Columns, handle_invalid: str = "error") -> list[Any]:
    """What makes the columns that a network reads, in order; empty if they are there already."""
    from pyspark.ml.feature import StringIndexer, StringIndexerModel, VectorAssembler

    made: list[Any] = []
    if columns.assembled:
        # Missing values become NaN, which the estimator's handleInvalid then judges and counts.
        made.append(
            VectorAssembler(
                inputCols=list(columns.assembled),
                outputCol=columns.features,
                handleInvalid="keep",
            )
        )
    if columns.names:
        made.append(
            StringIndexerModel.from_labels(
                list(columns.names), columns.indexed, columns.label, handle_invalid
            )
        )
    elif columns.indexed:
        made.append(
            StringIndexer(
                inputCol=columns.indexed,
                outputCol=columns.label,
                stringOrderType="alphabetAsc",
                handleInvalid=handle_invalid,
            )
        )
    return made


def network_in(model: Any) -> NetworkModel | None:
    """The last network in a model or a pipeline; None if there is none."""
    from sparknn.ml.model import NetworkModel

    if isinstance(model, NetworkModel):
        return model
    if hasattr(model, "bestModel"):  # CrossValidatorModel, TrainValidationSplitModel
        return network_in(model.bestModel)
    found = [network_in(stage) for stage in getattr(model, "stages", [])]
    return next((stage for stage in reversed(found) if stage is not None), None)


def flat(model: Any) -> Iterator[Any]:
    """The stages of pipelines within pipelines and of the best of several models, in order."""
    if hasattr(model, "bestModel"):
        yield from flat(model.bestModel)
    elif hasattr(model, "stages"):
        for stage in model.stages:
            yield from flat(stage)
    else:
        yield model


def class_names(model: Any, label: str) -> list[str]:
    """The texts that the numbers in column ``label`` stand for; empty if they are just numbers."""
    from pyspark.ml.feature import StringIndexerModel

    for stage in flat(model):
        if isinstance(stage, StringIndexerModel):
            several = stage.isSet("outputCols")
            made = stage.getOutputCols() if several else [stage.getOutputCol()]
            if label in made:
                return list(stage.labelsArray[made.index(label)])
    return []


def continue_as(model: Any, columns: Columns) -> list[str]:
    """Let new rows mean what those meant that a saved model was trained on; say where they cannot.

    Texts of the label get the numbers that they had: in another order, or with others among them,
    the network would take one class for another. And features must be those that they were.
    """
    from pyspark.ml.feature import VectorAssembler

    network = network_in(model)
    assert network is not None
    if columns.indexed:
        columns.names = tuple(class_names(model, network.getOrDefault("labelCol")))
        if not columns.names:
            log.warning(
                "training.initialModel does not know what its classes are called: the texts of "
                "column '%s' are numbered in alphabetical order.",
                columns.indexed,
            )
    for stage in flat(model):
        made = isinstance(stage, VectorAssembler) and stage.getOutputCol()
        if made and made == network.getOrDefault("featuresCol"):
            names = tuple(stage.getInputCols())
            if columns.assembled and columns.assembled != names:
                return [
                    f"data.features: {', '.join(columns.assembled)}; expected {', '.join(names)}, "
                    f"in this order, on which training.initialModel was trained."
                ]
    return []
