"""From TOML to checked values: every mistake in a job file or an experiment file, at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from sparknn.cli.errors import UsageError, raise_mistakes
from sparknn.cli.io import Source, Target
from sparknn.cli.keys import PARAM_KEYS, TRAIN, Key, Schema, new_estimator
from sparknn.ml.checked_params import ParamError
from sparknn.ml.params import NetworkParams
from sparknn.ml.validators import did_you_mean


@dataclass
class JobFile:
    """A file that was read and checked."""

    name: str
    tables: dict[str, Any]  # as given, overrides applied
    #: Keys that are no Params, by ``section.name``, with defaults; Params by section and name.
    values: dict[str, Any] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    estimator: Any = None  # of a training; it lacks features and label only

    @property
    def features(self) -> list[str]:
        """``data.features``, of which one may be given without a list."""
        names = self.values["data.features"]
        return names if isinstance(names, list) else [names]

    def sources(self) -> dict[str, Source]:
        """Return the rows to read, by the keys that name them."""
        options = self.values["data.format"], self.values["data.options"]
        paths = {key: self.values.get(key) for key in ("data.train", "data.test")}
        return {key: Source.of(path, *options) for key, path in paths.items() if path}

    def targets(self) -> dict[str, Target]:
        """Return where a training writes, by the keys that name it."""
        rows_as, overwrite = (
            self.values["output.predictionsFormat"],
            self.values["output.overwrite"],
        )
        formats = {"output.model": "model", "output.predictions": rows_as}
        paths = {key: path for key in formats if (path := self.values[key])}
        return {key: Target.of(path, formats[key], overwrite) for key, path in paths.items()}

    def build(self, task: str, *sections: str) -> Any:
        """Return an estimator with the Params of some sections; add the mistakes in them."""
        estimator = new_estimator(task)
        for section in sections:
            for name, value in self.params.get(section, {}).items():
                try:
                    if estimator.hasParam(name):
                        estimator._set(**{name: value})
                    else:
                        self.mistakes.append(f"{section}.{name}: not for task = {task!r}.")
                except ParamError as error:
                    self.mistakes.append(f"{section}.{name}{error.problems[name]}")
        return estimator


def load_train(path: str, overrides: Sequence[str] = ()) -> JobFile:
    """Read a job file and check all that can be checked without Spark; name every mistake."""
    file = read(path, overrides, TRAIN)
    given, test = file.values, file.values["data.test"]
    file.estimator = file.build(given["task"], *TRAIN)
    indicator = given["data.validationIndicator"]
    file.estimator._set(weightCol=given["data.weight"], validationIndicatorCol=indicator)
    try:
        file.estimator._check_combinations()
    except ParamError as error:
        file.mistakes += mistakes_in(error)
    if predictions := file.targets().get("output.predictions"):
        missing = "output.predictions: needs data.test, whose rows are predicted."
        problems = [predictions.format_problem("output.predictions"), "" if test else missing]
        file.mistakes += filter(None, problems)
    if test and not file.estimator.getPredictionCol():
        file.mistakes.append("output.predictionCol: is empty, but data.test needs predictions.")
    if not (given["output.model"] or test or file.mistakes):
        text = "missing. Without it or data.test, the trained model is discarded."
        file.mistakes.append(f"output.model: {text}")
    raise_mistakes(file.name, file.mistakes)
    return file


def read(path: str, overrides: Sequence[str], schema: Schema) -> JobFile:
    """Read a TOML file, apply ``section.key=value`` overrides, and collect mistakes in both."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(path, [f"cannot be read: {error.strerror}."]) from None
    except (ValueError, RecursionError) as error:  # of TOML, or of UTF-8
        raise UsageError(path, [f"is not valid TOML: {error}."]) from None
    file = JobFile(f"{path} with --set" if overrides else path, tables)
    file.mistakes += filter(None, [_apply(file.tables, text) for text in overrides])
    sections: dict[str, Any] = {name: {} for name in schema if "*" not in name} | {"": {}}
    for name, value in file.tables.items():
        if f"{name}.*" in schema and isinstance(value, dict):
            sections |= {f"{name}.{each}": table for each, table in value.items()}
        elif name in sections or f"{name}.*" in schema:
            sections[name] = value
        else:
            sections[""][name] = value
    for section, values in sections.items():
        _check(file, schema, section, values)
    return file


def _check(file: JobFile, schema: Schema, section: str, values: Any) -> None:
    """File the values of a section under ``values`` or ``params``, or as mistakes."""
    keys = schema.get(section) or schema.get(f"{section.partition('.')[0]}.*", {})
    prefix = f"{section}." if section else ""
    file.values |= {prefix + n: key.default for n, key in keys.items() if key.type != "param"}
    if not isinstance(values, dict):
        file.mistakes.append(f"{section}: expected a section [{section}], got {values!r}.")
        return
    missing = [n for n, key in keys.items() if key.required and n not in values]
    file.mistakes += [f"{prefix}{name}: missing. {keys[name].doc}" for name in missing]
    for name, value in values.items():
        full = prefix + name
        if name not in keys:
            file.mistakes.append(f"{full}: unknown {_hint(schema, keys, name, value)}")
        elif keys[name].type == "param":
            file.params.setdefault(section, {})[name] = value
        elif keys[name].type == "reserved":
            file.mistakes.append(f"{full}: is set by {keys[name].doc}.")
        elif problem := keys[name].problem(value):
            file.mistakes.append(f"{full}: {problem}")
        else:
            file.values[full] = value


def _hint(schema: Schema, keys: Mapping[str, Key], name: str, value: Any) -> str:
    """Say what is unknown, a section or a key, and suggest one of this section or any other."""
    if isinstance(value, dict):
        names = [section.removesuffix(".*") for section in schema if section]
        known = f"; the sections are {', '.join(names)}."
        return f"section{did_you_mean(name, names) or known}"
    if removed := NetworkParams._removed.get(name):
        return f"key; it was removed: {removed}"
    if here := did_you_mean(name, [each for each in keys if keys[each].type != "reserved"]):
        return f"key{here}"
    for section, others in schema.items():
        for other in others:
            if did_you_mean(name, [other]):
                return f"key; did you mean {section.replace('*', 'NAME')}.{other}?"
    return f"key. `sparknn {'keys' if schema is TRAIN else 'experiment --help'}` lists them all."


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
    except (ValueError, RecursionError):  # text: nobody wants to quote a path twice in a shell
        inner[name] = value.strip()
    return ""


def mistakes_in(error: ParamError) -> list[str]:
    """Return the problems of Params by the keys of a job file."""
    return [f"{PARAM_KEYS.get(name, name)}{text}" for name, text in error.problems.items()]
