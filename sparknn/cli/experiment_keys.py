"""The keys of an experiment file: which there are, what they hold, and which of them are Params."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparknn.cli.keys import FORMATS, PARAM_KEYS, Key

#: Keys of the experiment itself, by section. Kinds beside those of a job file: ``count`` (a whole
#: number from 1), ``number`` (a whole number from 0), ``counts`` (a list of counts), ``share``
#: (above 0, below 1) and ``part`` (above 0, at most 1).
OWN_KEYS: Mapping[str, Mapping[str, Key]] = {
    "data": {
        "train": Key("text", "The rows that are split: a path, or a table's name.", required=True),
        "format": Key("text", "By default as the path ends; otherwise parquet.", FORMATS),
        "options": Key("options", "Options for Spark's reader, such as { header = true }."),
        "features": Key("columns", "A column of vectors or arrays, or several numeric columns."),
        "label": Key("text", "The class; strings are indexed."),
        "rows": Key("count", "About how many rows to draw at random; by default all."),
    },
    "experiment": {
        "splits": Key("count", "Random divisions into training and test rows; 3 by default."),
        "testFraction": Key("share", "Share of the rows to test on; 0.2 by default."),
        "workers": Key("counts", "Numbers of workers; [1, 2, 4, 8] by default. 1 is sequential."),
        "iterations": Key("count", "Local epochs in total; 100 by default."),
        "period": Key("count", "Local epochs between averages; 5 by default, the poster's."),
        "periods": Key("counts", "Other periods to try, on the first split; none by default."),
        "miniBatchFraction": Key("part", "Share of its rows a worker draws; 0.1 by default."),
        "target": Key(
            "share",
            "Test accuracy whose cost is compared; by default what the first arm reaches "
            "sequentially, less half a point.",
        ),
        "seed": Key("number", "Decides every random choice; 0 by default."),
    },
    "output": {
        "folder": Key("text", "Where tables, JSON and figures go.", required=True),
        "overwrite": Key("switch", "Whether to replace what is there; false by default."),
    },
}

#: A key that an arm may have besides Params.
REDRAW = Key(
    "switch",
    "Whether a worker draws as many rows afresh instead of going over one draw several times.",
)

#: Params that make the network, the same one in every arm.
NETWORK_PARAMS = tuple(name for name in PARAM_KEYS["network"] if name != "loss")

#: Params that the experiment sets, and the key that decides them.
TAKEN = {
    "maxIter": "experiment.iterations and experiment.period",
    "localEpochs": "experiment.period",
    "period": "experiment.period, and stays fixed",
    "miniBatchFraction": "experiment.miniBatchFraction",
    "numWorkers": "experiment.workers",
    "seed": "experiment.seed",
    "finalWeights": "the protocol, whose final model is the last average",
    "patience": "the protocol, whose rounds are fixed",
    "tol": "the protocol, whose rounds are fixed",
    "initialModel": "the protocol, which starts afresh",
    "checkpointDir": "the protocol, which measures seconds",
    "checkpointInterval": "the protocol, which measures seconds",
}

#: Params that may differ between arms.
ARM_PARAMS = tuple(
    name
    for section in ("training", "averaging")
    for name in PARAM_KEYS[section]
    if name not in TAKEN
)

SECTIONS = ("data", "experiment", "network", "arms", "output")


def key_lines() -> Iterator[str]:
    """Every key of an experiment file, with what it does, by section."""
    for section in SECTIONS:
        if section == "network":
            yield f"[network]  {', '.join(NETWORK_PARAMS)}"
        elif section == "arms":
            yield "[arms.NAME]  at least one; redraw, and any of"
            for start in range(0, len(ARM_PARAMS), 6):
                yield f"  {', '.join(ARM_PARAMS[start : start + 6])}"
            yield f"  redraw: {REDRAW.about}"
        else:
            yield f"[{section}]"
            yield from (f"  {name}: {key.about}" for name, key in OWN_KEYS[section].items())
