"""From TOML to checked values: every mistake in a job file or an experiment file, at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparknn.cli.errors import UsageError, raise_mistakes
from sparknn.cli.io import Source, Target, output_problem
from sparknn.cli.keys import PARAM_KEYS, TRAIN, Key, Schema, new_estimator
from sparknn.ml.checked_params import ParamError
from sparknn.ml.validators import did_you_mean


@dataclass
class JobFile:
    """A file that was read and checked.

    ``tables`` are as given, overrides applied; ``values`` the keys that are no Params, by
    ``section.name``, with their defaults; ``params`` the others, by section and name.
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
        return Source.of(self.values[key], self.values["data.format"], self.values["data.options"])

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
    """What ``sparknn train`` is asked for; the estimator lacks features and label only."""

    name: str
    estimator: Any
    classifies: bool
    train: Source
    test: Source | None
    features: tuple[str, ...]
    label: str
    columns: tuple[str, ...]
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
    model, predictions, test = (
        given[key] for key in ("output.model", "output.predictions", "data.test")
    )
    format_, overwrite = given["output.predictionsFormat"], given["output.overwrite"]
    if predictions and not test:
        file.mistakes.append("output.predictions: needs data.test, whose rows are predicted.")
    if predictions and (problem := output_problem(predictions, format_)):
        file.mistakes.append(f"output.predictions: {problem}")
    if test and not estimator.getPredictionCol():
        file.mistakes.append("output.predictionCol: is empty, but data.test needs predictions.")
    if not (model or test or file.mistakes):
        text = "missing. Without it or data.test, the trained model is discarded."
        file.mistakes.append(f"output.model: {text}")
    raise_mistakes(file.name, file.mistakes)
    used = (*file.features, given["data.label"], weight, indicator)
    return TrainJob(
        name=file.name,
        estimator=estimator,
        classifies=given["task"] == "classification",
        train=file.source("data.train"),
        test=file.source("data.test") if test else None,
        features=file.features,
        label=given["data.label"],
        columns=tuple(name for name in used if name),
        model=Target(model, "model", overwrite) if model else None,
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
    file = JobFile(f"{path} with --set" if overrides else path, _read_toml(path))
    file.mistakes += [wrong for text in overrides if (wrong := _apply(file.tables, text))]
    sections: dict[str, Any] = {name: {} for name in schema if "*" not in name} | {"": {}}
    for name, value in file.tables.items():
        if f"{name}.*" in schema and isinstance(value, dict):
            sections |= {f"{name}.{each}": table for each, table in value.items()}
        elif name in sections or f"{name}.*" in schema:
            sections[name] = value
        else:
            sections[""][name] = value
    for section, values in sections.items():
        keys = schema.get(section) or schema.get(f"{section.partition('.')[0]}.*", {})
        prefix = f"{section}." if section else ""
        file.values |= {prefix + n: key.default for n, key in keys.items() if key.type != "param"}
        if isinstance(values, dict):
            _check(file, schema, prefix, keys, values)
        else:
            file.mistakes.append(f"{section}: expected a section [{section}], got {values!r}.")
    return file


def _check(
    file: JobFile, schema: Schema, section: str, keys: Mapping[str, Key], values: dict[str, Any]
) -> None:
    """File the values of a section under ``values`` or ``params``, or as mistakes."""
    file.mistakes += [
        f"{section}{name}: missing. {key.doc}"
        for name, key in keys.items()
        if key.required and name not in values
    ]
    for name, value in values.items():
        full, found = section + name, keys.get(name)
        if found is None:
            what = "section" if isinstance(value, dict) else "key"
            file.mistakes.append(f"{full}: unknown {what}{_hint(schema, name, keys, what)}")
        elif found.type == "param":
            file.params.setdefault(section[:-1], {})[name] = value
        elif found.type == "reserved":
            file.mistakes.append(f"{full}: is set by {found.doc}.")
        elif problem := found.problem(value):
            file.mistakes.append(f"{full}: {problem}")
        else:
            file.values[full] = value


def _hint(schema: Schema, name: str, keys: Mapping[str, Key], what: str) -> str:
    """Suggest what was meant: a section, or a key in this section or in any other."""
    if what == "section":
        names = [section.removesuffix(".*") for section in schema if section]
        return did_you_mean(name, names) or f"; the sections are {', '.join(names)}."
    if here := did_you_mean(name, [each for each, key in keys.items() if key.type != "reserved"]):
        return here
    for section, others in schema.items():
        for other in others:
            if did_you_mean(name, [other]):
                return f"; did you mean {section.replace('*', 'NAME')}.{other}?"
    return f". `sparknn {'keys' if schema is TRAIN else 'experiment --help'}` lists them all."


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(path, [f"cannot be read: {error.strerror}."]) from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(path, [f"is not valid TOML: {error}."]) from None


def _apply(tables: dict[str, Any], text: str) -> str:
    """Put one ``--set KEY=VALUE`` into the tables; return what is wrong with it."""
    key, equals, value = text.partition("=")
    *sections, name = key.strip().split(".")
    if not (equals and name and all(sections)):
        return f"--set {text}: expected KEY=VALUE, such as training.maxIter=5."
    inner: Any = tables
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            return f"--set {text}: {section} holds a value; it has no keys."
    try:
        inner[name] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:  # text: nobody wants to quote a path twice in a shell
        inner[name] = value.strip()
    return ""


def mistakes_in(error: ParamError) -> list[str]:
    """Return the problems of Params by the keys of a job file."""
    return [f"{PARAM_KEYS.get(name, name)}{text}" for name, text in error.problems.items()]
