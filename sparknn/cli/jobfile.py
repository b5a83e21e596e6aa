"""From TOML to checked values: every mistake in a job file or an experiment file, at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparknn.cli.errors import raise_mistakes
from sparknn.cli.io import Source, Target, output_problem
from sparknn.cli.keys import PARAM_KEYS, TRAIN, Key, Schema, new_estimator
from sparknn.ml.checked_params import ParamError
from sparknn.ml.validators import did_you_mean


@dataclass
class JobFile:
    """A file that was read and checked.

    Parameters
    ----------
    name : str
        Of the file, and whether there were overrides, for messages.
    tables : dict
        As given, overrides applied.
    values : dict
        Keys that are no Params, by ``section.name``, defaults filled in.
    params : dict of str to dict
        Params by section and name.
    mistakes : list of str
    """

    name: str
    tables: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    @property
    def features(self) -> tuple[str, ...]:
        """``data.features``, of which one may be given without a list."""
        names = self.values["data.features"]
        return tuple(names) if isinstance(names, list) else (names,)

    def source(self, key: str) -> Source:
        """Return the rows that a key names."""
        options = self.values["data.options"] or {}
        return Source.of(self.values[key], self.values["data.format"], options)

    def build(self, task: str, *sections: str) -> Any:
        """Return an estimator with the Params of some sections; add the mistakes in them."""
        estimator = new_estimator(task)
        keys = {name: section for section in sections for name in self.params.get(section, {})}
        other = [name for name in keys if not estimator.hasParam(name)]
        self.mistakes += [f"{keys[name]}.{name}: not for task = {task!r}." for name in other]
        known = {name: self.params[keys[name]][name] for name in keys if name not in other}
        try:
            estimator._set(**known)
        except ParamError as error:
            self.mistakes += [f"{keys[n]}.{n}{problem}" for n, problem in error.problems.items()]
            estimator._set(**{n: value for n, value in known.items() if n not in error.problems})
        return estimator


@dataclass(frozen=True)
class TrainJob:
    """What ``sparknn train`` is asked for; the fields are keys of the file.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    estimator : NeuralNetClassifier or NeuralNetRegressor
        With the Params of the file, features and label excepted.
    """

    name: str
    estimator: Any
    classifies: bool
    train: Source
    test: Source | None
    features: tuple[str, ...]
    label: str
    weight: str | None
    validation_indicator: str | None
    model: Target | None
    predictions: Target | None
    curve: str | None


def load_train(path: str, overrides: Sequence[str] = ()) -> TrainJob:
    """Read a job file and check all that can be checked without Spark.

    Raises
    ------
    UsageError
        Naming every mistake.
    """
    file = read(path, overrides, TRAIN)
    given = file.values
    estimator = file.build(given["task"], *TRAIN)
    weight, indicator = given["data.weight"], given["data.validationIndicator"]
    estimator._set(weightCol=weight, validationIndicatorCol=indicator)
    try:
        estimator._check_combinations()
    except ParamError as error:
        file.mistakes += mistakes_in(error)
    predictions = given["output.predictions"]
    if predictions and not given["data.test"]:
        file.mistakes.append("output.predictions: needs data.test, whose rows are predicted.")
    if given["data.test"] and not estimator.getPredictionCol():
        file.mistakes.append("output.predictionCol: is empty, but data.test needs predictions.")
    if not (given["output.model"] or given["data.test"] or file.mistakes):
        file.mistakes.append(
            "output.model: missing. Without it or data.test, the trained model is discarded."
        )
    format_ = given["output.predictionsFormat"]
    if predictions and (problem := output_problem(predictions, format_)):
        file.mistakes.append(f"output.predictions: {problem}")
    raise_mistakes(file.name, file.mistakes)
    overwrite = given["output.overwrite"]
    return TrainJob(
        name=file.name,
        estimator=estimator,
        classifies=given["task"] == "classification",
        train=file.source("data.train"),
        test=file.source("data.test") if given["data.test"] else None,
        features=file.features,
        label=given["data.label"],
        weight=weight,
        validation_indicator=indicator,
        model=Target(given["output.model"], "model", overwrite) if given["output.model"] else None,
        predictions=Target.of(predictions, format_, overwrite) if predictions else None,
        curve=given["output.curve"],
    )


def read(path: str, overrides: Sequence[str], schema: Schema) -> JobFile:
    """Read a TOML file, apply ``section.key=value`` overrides, and check both.

    Raises
    ------
    UsageError
        If there is no such file or it is not TOML; other mistakes are collected.
    """
    name = f"{path} with --set" if overrides else path
    file = JobFile(name, _read_toml(path))
    for text in overrides:
        file.mistakes += _apply(file.tables, text)
    for section, values in _sections(file, schema):
        keys = schema["arms.*" if section.startswith("arms.") else section]
        for key, value in values.items():
            _check(file, schema, section, keys, key, value)
        for key, declared in keys.items():
            if declared.required and key not in values:
                file.mistakes.append(f"{section}.{key}: missing. {declared.doc}")
            if declared.type != "param":
                file.values.setdefault(_join(section, key), declared.default)
    return file


def _check(
    file: JobFile, schema: Schema, section: str, keys: Mapping[str, Key], name: str, value: Any
) -> None:
    """File a value under ``values`` or ``params``, or its mistake."""
    full, key = _join(section, name), keys.get(name)
    if key is None:
        file.mistakes.append(f"{full}: unknown key{_where(schema, name, keys)}")
    elif key.type == "param":
        file.params.setdefault(section, {})[name] = value
    elif key.type == "reserved":
        file.mistakes.append(f"{full}: is set by {key.doc}.")
    elif problem := key.problem(value):
        file.mistakes.append(f"{full}: {problem}")
    else:
        file.values[full] = value


def _where(schema: Schema, name: str, keys: Mapping[str, Key]) -> str:
    """Suggest the key that was meant: in this section, or in any other."""
    here = [known for known, key in keys.items() if key.type != "reserved"]
    everywhere = {known for section in schema.values() for known in section}
    guess = name if name in everywhere else _closest(name, everywhere)
    homes = [_join(section, guess) for section, known in schema.items() if guess in known]
    shown = [home.replace("arms.*", "arms.NAME") for home in homes]
    command = "sparknn keys" if schema is TRAIN else "sparknn experiment --help"
    return did_you_mean(name, here) or (
        f"; did you mean {' or '.join(shown)}?" if shown else f". `{command}` lists them all."
    )


def _closest(name: str, known: set[str]) -> str:
    return next((word for word in sorted(known) if did_you_mean(name, [word])), "")


def _sections(file: JobFile, schema: Schema) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sections of a file by name, those left out as empty."""
    names = [section.removesuffix(".*") for section in schema if section]
    top: dict[str, Any] = {}
    for name, value in file.tables.items():
        if name in names:
            continue
        if isinstance(value, dict):
            listed = ", ".join(f"[{each}]" for each in names)
            hint = did_you_mean(name, names) or f"; the sections are {listed}."
            file.mistakes.append(f"[{name}]: unknown section{hint}")
        else:
            top[name] = value
    yield from _tables(file, {"": top}) if "" in schema else ()
    if "" not in schema:
        file.mistakes += [f"{name}: unknown key{_where(schema, name, {})}" for name in top]
    for name in names:
        values = file.tables.get(name, {})
        if name in schema or not isinstance(values, dict):
            yield from _tables(file, {name: values})
        elif values:
            yield from _tables(file, {f"{name}.{each}": table for each, table in values.items()})
        else:
            file.mistakes.append(f"{name}: missing. At least one section [{name}.NAME].")


def _tables(file: JobFile, tables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, values in tables.items():
        if isinstance(values, dict):
            yield name, values
        else:
            file.mistakes.append(f"{name}: expected a section [{name}], got {values!r}.")


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "there is no such file."
    except OSError as error:
        problem = f"cannot be read: {error.strerror}."
    except ValueError as error:  # of TOML, or of UTF-8
        problem = f"is not valid TOML: {error}."
    raise_mistakes(path, [problem])
    raise AssertionError


def _apply(tables: dict[str, Any], text: str) -> list[str]:
    """Put one ``--set KEY=VALUE`` into the tables; return the mistakes in it."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return [f"--set {text}: expected KEY=VALUE, such as training.maxIter=5."]
    inner: Any = tables
    for part in parts[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            return [f"--set {text}: {part} holds a value; it has no keys."]
    inner[parts[-1]] = _toml_value(value.strip())
    return []


def _toml_value(text: str) -> Any:
    """Parse a TOML value. What is none is text: nobody wants to quote a path twice in a shell."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def mistakes_in(error: ParamError) -> list[str]:
    """Return the problems of Params by the keys of a job file."""
    return [f"{PARAM_KEYS.get(name, name)}{text}" for name, text in error.problems.items()]
