"""The keys of job files and experiment files, in one table per file: loads, checks and help follow.

Of keys that are Params, the estimator knows the type. Nothing here imports Spark: help is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sparknn.ml.validators import did_you_mean

TASKS = ("classification", "regression")
FORMATS = ("parquet", "csv", "libsvm", "json", "orc", "table")
#: What rows can be written as: libsvm holds nothing but labels and features.
OUTPUT_FORMATS = tuple(name for name in FORMATS if name != "libsvm")


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least  # True is an int, too


def _are_names(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(n, str) and n and names.count(n) == 1 for n in names)


def _are_options(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(x, dict | list) for x in value.values())


#: By type: what is expected, in words, and whether a value is that.
_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("text", lambda v: isinstance(v, str) and v != ""),
    "columns": ("a column's name or a list of different names", _are_names),
    "flag": ("true or false", lambda v: isinstance(v, bool)),
    "options": ("a table of reader options, such as { header = true }", _are_options),
    "count": ("a whole number from 1", lambda v: _is_whole(v, 1)),
    "seed": ("a whole number from 0", lambda v: _is_whole(v, 0)),
    "counts": (
        "a list of whole numbers from 1, such as [1, 2, 4]",
        lambda v: isinstance(v, list) and all(_is_whole(x, 1) for x in v),
    ),
    "share": ("a number above 0 and below 1", lambda v: type(v) in (int, float) and 0 < v < 1),
    "part": ("a number above 0 and up to 1", lambda v: type(v) in (int, float) and 0 < v <= 1),
}


@dataclass(frozen=True)
class Key:
    """A key of a file."""

    type: str  # of _TYPES; "param": the estimator checks it; "reserved": doc says what sets it
    doc: str = ""
    default: Any = None
    choices: tuple[str, ...] = ()
    required: bool = False

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        expected, is_right = _TYPES[self.type]
        if not is_right(value):
            return f"expected {expected}, got {'empty text' if value == '' else repr(value)}."
        if self.choices and value not in self.choices:
            hint = did_you_mean(value, self.choices) or "."
            return f"expected one of {', '.join(self.choices)}, got {value!r}{hint}"
        return ""


def _params(*names: str) -> dict[str, Key]:
    return dict.fromkeys(names, Key("param"))


#: Keys by section; "" is the top of the file, "arms.*" every table in [arms].
Schema = Mapping[str, Mapping[str, Key]]

_ROWS = {
    "format": Key("text", "By default as the path ends; otherwise parquet.", choices=FORMATS),
    "options": Key("options", "For Spark's reader, such as { header = true }.", {}),
    "features": Key("columns", "Numbers, text, vectors; or one column of arrays.", "features"),
    "label": Key("text", "The column to predict; text is indexed.", "label"),
}
_NETWORK = _params("hiddenLayers", "activation", "dropout")
_OVERWRITE = Key("flag", "Whether to replace what is there.", False)

TRAIN: Schema = {
    "": {"task": Key("text", "What to fit.", "classification", TASKS)},
    "data": {
        "train": Key("text", "Rows to train on: a path, or a table's name.", required=True),
        "test": Key("text", "Rows to evaluate the model on when it is trained."),
        **_ROWS,
        "weight": Key("text", "A column of row weights."),
        "validationIndicator": Key("text", "A boolean column that marks validation rows."),
        **_params("validationFraction", "handleInvalid", "numClasses"),
    },
    "network": {**_NETWORK, **_params("loss", "quantiles")},
    "training": _params(
        *("maxIter", "solver", "stepSize", "stepSizeSchedule", "momentum", "batchSize"),
        *("miniBatchFraction", "localEpochs", "period", "regParam", "maxChange", "classWeight"),
        *("standardization", "numericEncoding", "categorical", "categoricalFeatures"),
        *(
            "patience",
            "tol",
            "validationMetric",
            "seed",
            "initialModel",
            "checkpointDir",
            "checkpointInterval",
            "shardDir",
        ),
        "verbose",
    ),
    "averaging": _params(
        *("numWorkers", "averaging", "averagingMomentum", "localState"),
        *("finalWeights", "shuffle", "aggregationDepth"),
    ),
    "output": {
        "model": Key("text", "Where to save the model."),
        "curve": Key("text", "Where to draw the training curve, on this machine (PNG, SVG, PDF)."),
        "predictions": Key("text", "Where to write the test rows with their predictions."),
        "predictionsFormat": Key("text", "By default as the path ends.", choices=OUTPUT_FORMATS),
        "overwrite": _OVERWRITE,
        **_params("predictionCol", "probabilityCol", "rawPredictionCol", "thresholds"),
        **_params("contributionsCol"),
    },
}

#: The key of each Param.
PARAM_KEYS: Mapping[str, str] = {
    "featuresCol": "data.features",
    "inputCols": "data.features",
    "labelCol": "data.label",
    "weightCol": "data.weight",
    "validationIndicatorCol": "data.validationIndicator",
} | {
    name: f"{section}.{name}"
    for section, keys in TRAIN.items()
    for name, key in keys.items()
    if key.type == "param"
}

#: Params that the protocol of an experiment sets.
_RESERVED = (
    *("maxIter", "localEpochs", "miniBatchFraction", "numWorkers", "seed", "period", "patience"),
    *("tol", "finalWeights", "initialModel", "checkpointDir", "checkpointInterval"),
)

EXPERIMENT: Schema = {
    "data": {
        "train": Key("text", "The rows to split: a path, or a table's name.", required=True),
        **_ROWS,
        "rows": Key("count", "About how many rows to draw at random; by default all."),
    },
    "experiment": {
        "splits": Key("count", "Random divisions into training and test rows.", 3),
        "testFraction": Key("share", "Share of the rows to test on.", 0.2),
        "workers": Key("counts", "Numbers of workers; 1 is sequential.", [1, 2, 4, 8]),
        "iterations": Key("count", "Local epochs in total.", 100),
        "period": Key("count", "Local epochs between averages.", 5),
        "periods": Key("counts", "Other periods to try, on the first split.", []),
        "miniBatchFraction": Key("part", "Share of its rows a worker draws per round.", 0.1),
        "target": Key("share", "Test accuracy whose cost is compared; by default the first arm's."),
        "seed": Key("seed", "Decides every random choice.", 0),
    },
    "network": _NETWORK,
    "arms.*": {
        "redraw": Key("flag", "Draw more rows instead of several passes over one draw.", False),
        **TRAIN["training"],
        **TRAIN["averaging"],
        **dict.fromkeys(_RESERVED, Key("reserved", "the keys of [experiment] and its protocol")),
    },
    "output": {
        "folder": Key("text", "Where tables, JSON and figures go.", required=True),
        "overwrite": _OVERWRITE,
    },
}


def key_lines(schema: Schema) -> Iterator[str]:
    """Yield every key with its meaning and default, by section; Params of job files only."""
    for section, keys in schema.items():
        yield f"[{section.replace('*', 'NAME')}]" if section else ""
        for name, key in keys.items():
            if key.type in _TYPES:
                choices = f" One of {', '.join(key.choices)}." if key.choices else ""
                default = f" Default {key.default!r}." if key.default else ""
                yield f"  {name}: {key.doc}{choices}{default}"
            elif key.type == "param" and schema is TRAIN:
                yield f"  {name}: {_param_doc(name)}"
        yield ""


def _param_doc(name: str) -> str:
    """Return a Param's doc and default, of the estimators that have it."""
    having = [task for task in TASKS if new_estimator(task).hasParam(name)]
    estimator = new_estimator(having[0])
    param = estimator.getParam(name)
    only = f" Only {having[0]}." if len(having) == 1 else ""
    default = f" Default {estimator.getOrDefault(param)!r}." if estimator.hasDefault(param) else ""
    return f"{param.doc.rstrip('.')}.{only}{default}"


def new_estimator(task: str) -> Any:
    """Return the estimator of a task, with its defaults."""
    from sparknn import NeuralNetClassifier, NeuralNetRegressor

    return NeuralNetRegressor() if task == "regression" else NeuralNetClassifier()
