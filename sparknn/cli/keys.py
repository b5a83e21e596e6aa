"""The keys of a job file: which there are, what they hold, and which of them are Params."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TASKS = ("classification", "regression")
FORMATS = ("parquet", "csv", "libsvm", "json", "orc", "table")
#: What predictions can be written as: libsvm holds nothing but labels and features.
OUTPUT_FORMATS = ("parquet", "csv", "json", "orc", "table")


@dataclass(frozen=True)
class Key:
    """A key that the command line itself reads; keys that are Params are known to the estimator.

    Parameters
    ----------
    kind : str
        ``text``, ``columns`` (a column or a list of columns), ``switch``, ``options`` (a table).
    about : str
    choices : tuple of str
        The values allowed, if not all are.
    required : bool
    """

    kind: str
    about: str
    choices: tuple[str, ...] = ()
    required: bool = False


#: Keys of the command line, by section; the section "" is the top of the file.
OWN_KEYS: Mapping[str, Mapping[str, Key]] = {
    "": {"task": Key("text", "What to fit; classification by default.", TASKS)},
    "data": {
        "train": Key("text", "Rows to train on: a path, or a table's name.", required=True),
        "test": Key("text", "Rows to evaluate the model on when it is trained."),
        "format": Key("text", "By default as the path ends; otherwise parquet.", FORMATS),
        "options": Key("options", "Options for Spark's reader, such as { header = true }."),
        "features": Key("columns", "A column of vectors or arrays, or several numeric columns."),
        "label": Key("text", "The column to predict; strings are indexed."),
        "weight": Key("text", "A column of row weights."),
        "validationIndicator": Key("text", "A boolean column that marks validation rows."),
    },
    "output": {
        "model": Key("text", "Where to save the model."),
        "curve": Key("text", "Where to draw the training curve, on this machine (PNG, SVG, PDF)."),
        "predictions": Key("text", "Where to write the test rows with their predictions."),
        "predictionsFormat": Key("text", "As for data.format.", OUTPUT_FORMATS),
        "overwrite": Key("switch", "Whether to replace what is there; false by default."),
    },
}

#: Params of the estimators, by section.
PARAM_KEYS: Mapping[str, tuple[str, ...]] = {
    "data": ("validationFraction", "handleInvalid", "numClasses"),
    "network": ("hiddenLayers", "activation", "dropout", "loss"),
    "training": (
        *("maxIter", "solver", "stepSize", "stepSizeSchedule", "momentum", "batchSize"),
        *("miniBatchFraction", "localEpochs", "period", "regParam", "maxChange", "classWeight"),
        *("standardization", "patience", "tol", "seed", "initialModel"),
        *("checkpointDir", "checkpointInterval"),
    ),
    "averaging": (
        *("numWorkers", "averaging", "averagingMomentum", "averagingRate", "localState"),
        *("finalWeights", "shuffle", "aggregationDepth"),
    ),
    "output": ("predictionCol", "probabilityCol", "rawPredictionCol", "thresholds"),
}

SECTIONS = ("data", "network", "training", "averaging", "output")


def names_in(section: str) -> list[str]:
    """Every key that a section may have."""
    return [*OWN_KEYS.get(section, {}), *PARAM_KEYS.get(section, ())]


def homes_of(name: str) -> list[str]:
    """The keys, with their sections, that are called ``name``."""
    return [f"{section}.{name}" for section in SECTIONS if name in names_in(section)]
