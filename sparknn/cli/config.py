"""A job file: TOML in, a ``TrainConfig`` out, or every mistake in it at once. No Spark yet."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparknn.cli.keys import OWN_KEYS, PARAM_KEYS, SECTIONS, Key, homes_of, names_in
from sparknn.cli.mistakes import UsageError
from sparknn.cli.tables import Source, Target
from sparknn.ml.validators import did_you_mean

Table = dict[str, Any]


@dataclass(frozen=True)
class TrainConfig:
    """What ``sparknn train`` is asked for.

    Parameters
    ----------
    name : str
        Of the file, and whether there were overrides, for messages.
    task : str
        ``classification`` or ``regression``.
    train, test : Source
    features : tuple of str
        One column, or several numeric ones to assemble.
    label : str
    weight, validation_indicator : str, optional
    params : dict
        Values of Params as they stand in the file, by ``section.name``.
    model, predictions : Target, optional
    curve : str, optional
    """

    name: str
    task: str
    train: Source
    test: Source | None
    features: tuple[str, ...]
    label: str
    weight: str | None
    validation_indicator: str | None
    params: Table = field(default_factory=dict)
    model: Target | None = None
    predictions: Target | None = None
    curve: str | None = None


def load(path: str, overrides: Sequence[str] = ()) -> tuple[TrainConfig, list[str]]:
    """Read a job file, apply ``section.key=value`` overrides, and check both.

    Returns
    -------
    TrainConfig, list of str
        The mistakes found. The configuration is complete only if there are none; with some it
        holds what could be read, so that its Params can still be checked.

    Raises
    ------
    UsageError
        If there is no such file or it is not TOML.
    """
    table = read_toml(path)
    mistakes: list[str] = []
    for override in overrides:
        mistakes += apply_override(table, override)
    own, params, found = _sort_keys(table)
    return _assemble(heading(path, overrides), own, params), mistakes + found


def heading(path: str, overrides: Sequence[str]) -> str:
    """What mistakes are in: a file, and what was said besides."""
    return f"{path} with --set" if overrides else path


def read_toml(path: str) -> Table:
    """The tables of a TOML file.

    Raises
    ------
    UsageError
        If there is no such file or it is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(path, ["there is no such file."]) from None
    except IsADirectoryError:
        raise UsageError(path, ["is a folder; expected a TOML file."]) from None
    except UnicodeDecodeError as error:
        raise UsageError(path, [f"is not UTF-8 text: {error.reason}."]) from None
    except OSError as error:
        raise UsageError(path, [f"cannot be read: {error.strerror}."]) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(path, [f"is not valid TOML: {error}."]) from None


def apply_override(table: Table, text: str) -> list[str]:
    """Put one ``--set KEY=VALUE`` into the table; return the mistakes in it."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return [f"--set {text}: expected KEY=VALUE, such as training.maxIter=5."]
    inner: Any = table
    for part in parts[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            return [f"--set {text}: {part} holds a value; it has no keys."]
    inner[parts[-1]] = _value(value.strip())
    return []


def _value(text: str) -> Any:
    """A TOML value. What is none is text: nobody wants to quote a path twice in a shell."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _sort_keys(table: Table) -> tuple[dict[str, Any], Table, list[str]]:
    """Split a file into the command line's values and Params, and name what is neither."""
    own: dict[str, Any] = {}
    params: Table = {}
    mistakes: list[str] = []
    top = {name: value for name, value in table.items() if name not in SECTIONS}
    for section, values in {"": top, **{s: table.get(s, {}) for s in SECTIONS}}.items():
        if not isinstance(values, dict):
            mistakes.append(f"{section}: expected a section [{section}], got {kind_of(values)}.")
            continue
        for name, value in values.items():
            full = f"{section}.{name}" if section else name
            if name in OWN_KEYS.get(section, {}):
                fault = check_value(OWN_KEYS[section][name], value)
                if fault:
                    mistakes.append(f"{full}: {fault}")
                else:
                    own[full] = value
            elif name in PARAM_KEYS.get(section, ()):
                params[full] = value
            else:
                mistakes.append(_unknown(section, name, value))
        mistakes += [
            f"{section}.{name}: missing. {key.about}"
            for name, key in OWN_KEYS.get(section, {}).items()
            if key.required and name not in values
        ]
    return own, params, mistakes + _clashes(own, params)


def _clashes(own: Mapping[str, Any], params: Table) -> list[str]:
    """What cannot be had together."""
    mistakes = []
    if "data.validationIndicator" in own and params.get("data.validationFraction"):
        mistakes.append(
            "data.validationFraction: not together with data.validationIndicator; set one of them."
        )
    if "output.predictions" in own and "data.test" not in own:
        mistakes.append("output.predictions: needs data.test, whose rows are predicted.")
    if params.get("output.predictionCol") == "" and "data.test" in own:
        mistakes.append("output.predictionCol: is empty; data.test is measured by predictions.")
    return mistakes


def _unknown(section: str, name: str, value: Any) -> str:
    """Say that a key is unknown, and where it belongs or what it may have meant."""
    if not section and isinstance(value, dict):
        known = ", ".join(f"[{each}]" for each in SECTIONS)
        hint = did_you_mean(name, SECTIONS) or f"; the sections are {known}."
        return f"[{name}]: unknown section{hint}"
    full = f"{section}.{name}" if section else name
    homes = homes_of(name) or homes_of(_nearest(name))
    here = did_you_mean(name, names_in(section))
    if here:
        hint = here
    elif homes:
        hint = f"; did you mean {' or '.join(homes)}?"
    else:
        hint = ". `sparknn keys` lists them all."
    return f"{full}: unknown key{hint}"


def _nearest(name: str) -> str:
    """The key of any section that ``name`` resembles most; empty if there is none."""
    guess = did_you_mean(name, [key for section in SECTIONS for key in names_in(section)])
    return guess.split("'")[1] if guess else ""


def check_value(key: Key, value: Any) -> str:
    """What is wrong with a value of the command line's own keys; empty if nothing is."""
    match key.kind:
        case "text":
            right = isinstance(value, str) and value != ""
            expected = "text"
        case "columns":
            names = value if isinstance(value, list) else [value]
            right = bool(names) and all(isinstance(n, str) and n for n in names)
            expected = "a column's name or a list of names"
            if right and len(set(names)) < len(names):
                return f"names a column twice: {', '.join(names)}."
        case "switch":
            right = isinstance(value, bool)
            expected = "true or false"
        case _:
            right = isinstance(value, dict) and all(
                isinstance(v, str | int | float | bool) for v in value.values()
            )
            expected = "a table of reader options, such as { header = true }"
    if not right:
        return f"expected {expected}, got {kind_of(value)}."
    if key.choices and value not in key.choices:
        hint = did_you_mean(value, key.choices) or "."
        return f"expected one of {', '.join(key.choices)}, got {value!r}{hint}"
    return ""


def kind_of(value: Any) -> str:
    """A value as a message names it."""
    if isinstance(value, dict):
        return "a table"
    return "empty text" if value == "" else repr(value)


def _assemble(path: str, own: Mapping[str, Any], params: Table) -> TrainConfig:
    def source(key: str) -> Source | None:
        if key not in own:
            return None
        return Source.of(own[key], own.get("data.format"), own.get("data.options", {}))

    def target(key: str, format_: str | None = None) -> Target | None:
        if key not in own:
            return None
        return Target.of(own[key], format_, overwrite=own.get("output.overwrite", False))

    features = own.get("data.features", "features")
    return TrainConfig(
        name=path,
        task=own.get("task", "classification"),
        train=source("data.train") or Source("", "parquet"),
        test=source("data.test"),
        features=tuple(features) if isinstance(features, list) else (features,),
        label=own.get("data.label", "label"),
        weight=own.get("data.weight"),
        validation_indicator=own.get("data.validationIndicator"),
        params=params,
        model=target("output.model"),
        predictions=target("output.predictions", own.get("output.predictionsFormat")),
        curve=own.get("output.curve"),
    )
