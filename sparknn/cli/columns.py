"""What the columns that a job file names need before a network can read them, and are unfit for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparknn.ml.validators import did_you_mean

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from sparknn.cli.config import TrainConfig
    from sparknn.cli.estimator import Estimator

# Names for the columns that the stages make.
_FEATURES, _LABEL_INDEX, PREDICTED_LABEL = "features", "labelIndex", "predictedLabel"


@dataclass
class Columns:
    """What the columns of the rows need before a network can read them.

    Parameters
    ----------
    features, label : str
        The columns that the network reads.
    assembled : tuple of str
        The columns that make up ``features``; empty if it is there already.
    indexed : str
        The text column that ``label`` numbers; empty if labels are numbers.
    names : tuple of str
        Its texts, by number, if a network that is continued from knows them; by default sorted.
    mistakes : list of str
        Columns that are missing or of the wrong type, by their keys.
    """

    features: str
    label: str
    assembled: tuple[str, ...] = ()
    indexed: str = ""
    names: tuple[str, ...] = ()
    mistakes: list[str] = field(default_factory=list)


def look_at(schema: StructType, config: TrainConfig) -> Columns:
    """Find out from the rows' schema what the columns named in the job file need."""
    from pyspark.sql.types import BooleanType, NumericType

    named = [("data.features", name) for name in config.features]
    named += [("data.label", config.label)]
    named += [("data.weight", config.weight)] if config.weight else []
    if config.validation_indicator:
        named += [("data.validationIndicator", config.validation_indicator)]
    mistakes = _missing(schema, named, config.train.path)
    if config.label in config.features:
        mistakes.append(f"data.features: {config.label!r} is the label.")
    columns = Columns(config.features[0], config.label, mistakes=mistakes)
    if mistakes:
        return columns
    if not _is_ready(schema, config.features):
        columns.features, columns.assembled = free_name(schema, _FEATURES), config.features
    if config.task == "classification" and _type(schema, config.label) == "string":
        columns.label, columns.indexed = free_name(schema, _LABEL_INDEX), config.label
    mistakes += _wrong_features(schema, columns, "data.features")
    mistakes += _wrong_label(schema, config, columns, "data.label")
    others = [
        ("data.weight", config.weight, NumericType, "numbers"),
        ("data.validationIndicator", config.validation_indicator, BooleanType, "booleans"),
    ]
    mistakes += [
        _wrong_type(schema, key, name, expected)
        for key, name, kind, expected in others
        if name and not isinstance(schema[name].dataType, kind)
    ]
    return columns


def look_at_test(schema: StructType, config: TrainConfig, columns: Columns) -> list[str]:
    """What makes test rows unfit for a network that is trained on such columns."""
    assert config.test is not None
    named = [("data.test", name) for name in (*config.features, config.label)]
    return _missing(schema, named, config.test.path) or [
        *_wrong_features(schema, columns, "data.test"),
        *_wrong_label(schema, config, columns, "data.test"),
    ]


def taken(
    schema: StructType, net: Estimator, columns: Columns, key: str = "", *, case_matters: bool
) -> list[str]:
    """Columns that the model adds and the rows have already, or that two keys name.

    Parameters
    ----------
    key : str
        What named the rows; by default the key that named the output is to blame.
    """
    same = str if case_matters else str.lower
    there = {same(name) for name in schema.names}
    made = [(columns.features, "made of data.features")] * bool(columns.assembled)
    made += [(columns.label, "made of data.label")] * bool(columns.indexed)
    added = {same(name): how for name, how in made}
    # Of training rows these names are free; of test rows they may not be.
    mistakes = [
        f"{key}: the rows have a column {name!r} already, which is {how}. Rename or drop it."
        for name, how in made
        if same(name) in there
    ]
    if columns.indexed:
        added[same(PREDICTED_LABEL)] = "for the text of the prediction"
    if columns.indexed and same(PREDICTED_LABEL) in there:
        mistakes.append(
            f"{key or 'data.label'}: the rows have a column {PREDICTED_LABEL!r} already, which is "
            f"where predictions of text go. Rename or drop it."
        )
    if columns.indexed and not net.getOrDefault("predictionCol"):
        mistakes.append("output.predictionCol: is empty; labels that are text need predictions.")
    for param in ("predictionCol", "probabilityCol", "rawPredictionCol"):
        name = net.getOrDefault(param) if net.hasParam(param) else ""
        if not name:
            continue
        if same(name) in there:
            mistakes.append(
                f"{key or f'output.{param}'}: the rows have a column {name!r} already. Drop it, or "
                f"choose another name with output.{param}."
            )
        elif same(name) in added:
            mistakes.append(
                f"output.{param}: there is a column {name!r} already, {added[same(name)]}. Choose "
                f"another name."
            )
        added[same(name)] = f"named by output.{param}"
    return mistakes


def _missing(schema: StructType, named: Sequence[tuple[str, str]], path: str) -> list[str]:
    return [
        f"{key}: there is no column {name!r} in {path}"
        f"{did_you_mean(name, schema.names) or f'; it has {_listed(schema.names)}.'}"
        for key, name in named
        if name not in schema.names
    ]


def _is_ready(schema: StructType, names: Sequence[str]) -> bool:
    """Whether features are one column of vectors or arrays, which a network reads as it is."""
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import ArrayType

    return len(names) == 1 and isinstance(schema[names[0]].dataType, VectorUDT | ArrayType)


def _wrong_features(schema: StructType, columns: Columns, key: str) -> list[str]:
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import BooleanType, NumericType

    if not columns.assembled:
        if _is_numbers(schema, columns.features):
            return []
        return [_wrong_type(schema, key, columns.features, "vectors or arrays of numbers")]
    mistakes = [
        _wrong_type(schema, key, name, "numbers, or a single column of vectors or arrays")
        + _text_advice(_type(schema, name))
        for name in columns.assembled
        if not isinstance(schema[name].dataType, NumericType | BooleanType | VectorUDT)
    ]
    return mistakes + [
        f"{key}: column {name!r} has a dot in its name, which Spark's VectorAssembler takes for a "
        f"field of a struct. Rename the column."
        for name in columns.assembled
        if "." in name
    ]


def _wrong_label(schema: StructType, config: TrainConfig, columns: Columns, key: str) -> list[str]:
    from pyspark.sql.types import NumericType, StringType

    kind = schema[config.label].dataType
    if columns.indexed:
        if "." in config.label:
            return [
                f"{key}: column {config.label!r} has a dot in its name, which Spark's "
                f"StringIndexer takes for a field of a struct. Rename the column."
            ]
        right, expected = isinstance(kind, StringType | NumericType), "text, as for training"
    elif config.task == "classification":
        right, expected = isinstance(kind, NumericType), "class numbers 0, 1, 2, ..., or text"
    else:
        right = isinstance(kind, NumericType) or _is_numbers(schema, config.label)
        expected = "numbers, or vectors or arrays of them"
    return [] if right else [_wrong_type(schema, key, config.label, expected)]


def _wrong_type(schema: StructType, key: str, name: str, expected: str) -> str:
    return f"{key}: column {name!r} is of type {_type(schema, name)}; expected {expected}."


def _is_numbers(schema: StructType, name: str) -> bool:
    """Whether a column holds vectors, or arrays of numbers."""
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import ArrayType, NumericType

    kind = schema[name].dataType
    return isinstance(kind, VectorUDT) or (
        isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)
    )


def _text_advice(type_: str) -> str:
    return " Turn categories into numbers first, with StringIndexer and OneHotEncoder." * (
        type_ == "string"
    )


def _type(schema: StructType, name: str) -> str:
    return schema[name].dataType.simpleString()


def free_name(schema: StructType, name: str) -> str:
    """``name``, with underscores until no column is called so, in whatever case."""
    taken_names = {each.lower() for each in schema.names}
    while name.lower() in taken_names:
        name += "_"
    return name


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
